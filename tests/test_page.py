"""Pages that fetch nothing, run nothing, and show what they are given as text."""

import base64
import re

from matplotlib import rc_context

from mmctr_jax import formats
from mmctr_jax.pages import html as page
from mmctr_jax.pages.figures import STYLE, empty_axes, picture

HOSTILE = "<script>alert('1')</script> & \"two\" $x_1$"


@rc_context(STYLE)
def drawn(values=(), height=2.8, label=None, **settings):
    axes = empty_axes(height)
    axes.plot(values, label=label)
    return picture(axes, **settings)


def test_whatever_is_given_is_shown_as_text():
    html = page.page(
        HOSTILE,
        page.section(HOSTILE, page.paragraph(HOSTILE), page.notes([HOSTILE])),
        page.folded(HOSTILE, page.table([HOSTILE, "n"], [[HOSTILE, "1"]], HOSTILE), page.preformatted(HOSTILE)),
        page.table([HOSTILE], [[HOSTILE]], breaks=True),
        drawn(title=HOSTILE),
    )
    assert "<script" not in html and "alert(&#x27;1&#x27;)" in html
    picture = base64.b64decode(re.search(r"svg\+xml;base64,([^\"]+)", html)[1]).decode()
    assert "<script" not in picture and "&lt;script&gt;" in picture and "$x_1$" in picture  # no mathematics either


def test_nothing_is_fetched_and_nothing_runs():
    html = page.page("A", page.beside(drawn([1, 2], title="a line"), page.paragraph("b")))
    assert "default-src 'none'" in html
    sources = re.findall(r"(?:src|href)=\"([^\"]*)", html)
    assert len(sources) == 2 and all(source.startswith("data:") for source in sources)
    assert not re.search(r"<script|<iframe|@import|url\(|\son\w+=", html)


def test_a_picture_has_size_words_and_the_same_bytes_each_time():
    def draw():
        return drawn(
            [3, 1, 2],
            2.0,
            label="漢字 😀",  # letters that no font at hand may have
            title='what is "seen"',
            ylabel="AUC",
            xlabel="step",
        )

    assert 'width="403" height="192"' in draw() and 'alt="Chart: what is &quot;seen&quot;, AUC, step"' in draw()
    assert draw() == draw()


def test_a_gap_is_drawn_where_there_is_no_value():
    def lines(values):
        picture = base64.b64decode(re.search(r"base64,([^\"]+)", drawn(values))[1]).decode()
        return re.search(r'<path d="([^"]+)" clip-path[^>]*style="fill: none; stroke: #1f77b4', picture)

    assert lines([None, None]) is None and lines([1, 2, None, 2, 3])[1].count("M") == 2


def test_numbers_as_people_read_them():
    assert [formats.count(n) for n in (0, 1234567, None)] == ["0", "1,234,567", "–"]
    assert [formats.decimal(x) for x in (0.12345, 1234.5, -0.00001, None)] == ["0.123", "1,234.500", "0.000", "–"]
    assert [formats.percent(x) for x in (0.0, 0.1234, 0.00012, 1.0, None)] == [
        "0.0 %",
        "12.3 %",
        "0.012 %",
        "100.0 %",
        "–",
    ]
