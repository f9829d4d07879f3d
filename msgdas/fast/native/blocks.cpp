// Memory of tensors on the CPU, in blocks that any later tensor of the size fits.
//
// PyTorch asks for aligned memory, for which glibc takes a block from a larger one and hands the rests out on their own,
// to whatever small asks next. A map's block, once free, so lies between rests in use and is too small for the next map
// of the size. Here a block has room to be aligned in: all of one size are alike, and none leaves a rest.

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <cstdlib>

namespace {

constexpr size_t LINE = 64;  // bytes that data is aligned to, as PyTorch's own is; malloc aligns to 16, so there is
                             // room before the data for the address of its block

void give_back(void* data) {
    if (!data) return;
    c10::profiledCPUMemoryReporter().Delete(data);
    std::free(static_cast<void**>(data)[-1]);
}

struct Blocks final : c10::Allocator {
    c10::DataPtr allocate(size_t bytes) override {
        void* data = nullptr;
        if (bytes) {
            void* block = std::malloc(bytes + LINE);
            TORCH_CHECK(block, "can't allocate memory: you tried to allocate ", bytes, " bytes");
            data = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(block) / LINE + 1) * LINE);
            static_cast<void**>(data)[-1] = block;
            c10::profiledCPUMemoryReporter().New(data, bytes);
        }
        return {data, data, &give_back, c10::DeviceType::CPU};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
    void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

}  // namespace

// Whether tensors get such blocks from now on, or PyTorch's; each goes back to where it came from.
extern "C" void use_blocks(int use) {
    static Blocks blocks;
    c10::SetCPUAllocator(use ? &blocks : c10::GetDefaultCPUAllocator());
}
