"""Numbers as text."""

from msgdas.report.numbers import compact, duration, percent, plain


def test_percent():
    assert [percent(x) for x in (0.5, None, float("nan"))] == ["50.00 %", "–", "–"]
    assert percent(0.5, 0) == "50 %"


def test_large_numbers_are_compact():
    assert [compact(x) for x in (12, 999, 1000, 73482, 999_999, 1_234_567, 2.5e9, None, "a", float("inf"))] == [
        "12.0", "999", "1.00 k", "73.5 k", "1.00 M", "1.23 M", "2.50 G", "–", "–", "–",
    ]  # fmt: skip


def test_durations():
    assert [duration(x) for x in (3.21, 58.3, 59.7, 185, 7620, 90_000, None, float("nan"))] == [
        "3.2 seconds",
        "58 seconds",
        "1 minute",
        "3 minutes and 5 seconds",
        "2 hours and 7 minutes",
        "1 day and 1 hour",
        "–",
        "–",
    ]


def test_any_value_is_plain():
    assert [plain(x) for x in (None, True, 3, 12345, 0.1, "a", [1, "b"])] == [
        "–",
        "yes",
        "3",
        "12,345",
        "0.1",
        "a",
        '[1, "b"]',
    ]
