"""What is content comes out, what is a menu stays out: page by page, what resiliparse's rules alone would lose."""

import pyarrow as pa
import pytest

from stages.extract.html import ExtractHtml

PROSE = (
    "<p>Bread needs only flour, water, salt and time. Mix them in the evening, fold the dough twice before you go to bed, and "
    "let it stand in a cool place until morning. Then the oven does the rest of the work for you.</p>"
)
LIST = "<ul><li>Weigh five hundred grams of flour.</li><li>Add the water slowly.</li></ul>"
MENU = "<ul class='menu'><li><a href='/'>Home page</a></li><li><a href='/shop'>Shop window</a></li></ul>"


def text(body, head="", **options):
    markup = f"<!DOCTYPE html><html><head><title>Bread</title>{head}</head><body>{body}</body></html>"
    found = ExtractHtml(**options).open()(pa.table({"media": ["text/html"], "text": [markup]}))
    return found["text"][0].as_py()


def wrapped(part, depth, tag="div"):
    return f"<{tag}>" * depth + PROSE + part + PROSE + f"</{tag}>" * depth


@pytest.mark.parametrize("depth", range(7))
@pytest.mark.parametrize("tag", ["div", "section", "article"])
def test_lists_of_any_depth_come_out(depth, tag):
    found = text(wrapped(LIST, depth, tag))
    assert "• Weigh five hundred grams of flour." in found
    assert "Add the water slowly." in found
    assert found.count("Bread needs only flour") == 2


@pytest.mark.parametrize(
    "part",
    [
        "<UL><LI>a pinch of salt<LI>some yeast</UL>",
        "<ul><li>outer<ul><li>a pinch of salt</li></ul></li></ul>",
        "<ol><li>first<ul><li>a pinch of salt</li></ul></li></ol>",
        "<ul><li><p>a pinch of salt</p></li></ul>",
        "<div class='itemizedlist'><ul class='itemizedlist'><li>a pinch of salt</li></ul></div>",
        "<table><tr><td><ul><li>a pinch of salt</li></ul></td></tr></table>",
        "<blockquote><ul><li>a pinch of salt</li></ul></blockquote>",
        "<ul><li>with <a href='/s'>a pinch of salt</a> from the sea, if there is some</li></ul>",
        "<ul><li><a href='/s'>a pinch of salt</a></li><li><a href='/y'>some yeast</a></li></ul>",
        "<ul><li><code>a pinch of salt</code>: as much as three fingers hold</li></ul>",
    ],
)
def test_lists_of_any_kind_come_out(part):
    assert "a pinch of salt" in text("<main>" + PROSE + part + PROSE + "</main>")


def test_a_page_of_a_list_alone_is_a_list():
    assert "Weigh five hundred grams of flour." in text("<h1>Bread</h1>" + LIST)


@pytest.mark.parametrize(
    "menu",
    [
        MENU,
        MENU.replace(" class='menu'", ""),
        f"<nav>{MENU}</nav>",
        f"<div class='share-box'>{PROSE[:60]}</p>{MENU}</div>",
        "<ul class='tags'><li>Home page</li><li>Shop window</li></ul>",
        "<div class='breadcrumbs'><ul><li>Home page</li><li>Shop window</li></ul></div>",
    ],
)
def test_menus_stay_out(menu):
    found = text(f"<div><div>{menu}</div><main>{PROSE}{LIST}</main></div>")
    assert "Home page" not in found
    assert "Shop window" not in found
    assert "Weigh five hundred grams" in found


def test_links_of_a_kept_list_have_their_targets_if_asked_for():
    part = "<ul><li><a href=' /s '>salt</a> of the sea</li><li>flour</li></ul>"
    assert "salt (/s) of the sea" in text(wrapped(part, 1), links=True)
    assert "salt of the sea" in text(wrapped(part, 1))


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("<ruby>麦<rp>(</rp><rt>むぎ</rt><rp>)</rp></ruby>の粉", "麦(むぎ)の粉"),
        ("<ruby>麦<rt>むぎ</rt></ruby>の粉", "麦(むぎ)の粉"),
        ("<ruby>小<rt>こ</rt>麦<rt>むぎ</rt></ruby>の粉", "小麦(こむぎ)の粉"),
        ("<ruby><rb>小麦</rb><rp>（</rp><rt>こむぎ</rt><rp>）</rp></ruby>", "小麦（こむぎ）"),
        ("<ruby>面<rt>miàn</rt>包<rt>bāo</rt></ruby>", "面包(miàn bāo)"),
        ("<ruby>麦</ruby>の粉", "麦の粉"),
        ("<ruby>&#40614;<rt>むぎ</rt></ruby>", "麦(むぎ)"),
    ],
)
@pytest.mark.parametrize("main_content", [True, False])
def test_ruby_has_its_base_whole_and_the_reading_behind_it(part, expected, main_content):
    assert expected in text(f"<main>{PROSE}<p>{part}</p></main>", main_content=main_content)


@pytest.mark.parametrize("character", ["粉", "—", "€", "&mdash;", "&#8364;", "&#x7c89;", "ก", "…", " 粉 "])
def test_a_character_of_its_own_element_comes_out(character):
    import html

    found = text(f"<main>{PROSE}<table><tr><th>item</th><td>{character}</td><td><b>{character}</b></td></tr></table></main>")
    assert found.count(html.unescape(character).strip()) == 2
    assert "\ufdd0" not in found


@pytest.mark.parametrize("icon", ["\uf101", "&#xf101;", "¶", "&para;"])
def test_icons_and_the_links_of_headings_stay_out(icon):
    import html

    assert html.unescape(icon) not in text(f"<main><h2>Bread <a href='#b'>{icon}</a></h2>{PROSE}</main>")


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("<figure><pre>mix(flour)</pre></figure>", "mix(flour)"),
        (
            "<figure class='highlight'><table><tr><td class='gutter'>1</td><td><pre>mix(flour)</pre></td></tr></table></figure>",
            "mix(f",
        ),
        ("<figure><table><tr><td>rye</td><td>12%</td></tr></table><figcaption>Table 3: shares</figcaption></figure>", "Table 3"),
        ("<figure><blockquote>Bread is a long story.</blockquote></figure>", "Bread is a long story."),
        ("<p>Baked since <time datetime='1890'>1890</time> by the same family in the same town.</p>", "since 1890 by"),
        ("<table><tr><td><time>05:30</time></td><td>The oven is lit.</td></tr></table>", "05:30"),
        ("<aside class='footnote'>1. Rye takes longer.</aside>", "Rye takes longer."),
        ("<aside role='note'>Rye takes longer.</aside>", "Rye takes longer."),
        ("<aside>Rye takes longer, and so does any flour from the whole grain.</aside>", "Rye takes longer,"),
        ("<p>Write to <span class='email'>oven@bread.test</span> for help.</p>", "Write to oven@bread.test for help."),
        ("<p>Mail: <code class='email'><a class='email' href='mailto:o@b.test'>o@b.test</a></code></p>", "o@b.test"),
        ("<p>The Japanese word is <span class='jp'>パン</span>.</p>", "is パン."),
        ("<table><tr><td class='jp'>パン</td><td>bread</td></tr></table>", "パン"),
        ("<p>The bakers, who are <b class='paid'>paid by the hour</b>, begin at four.</p>", "paid by the hour"),
        (
            "<p>As <a rel='author' href='/a'>Ada Baker</a> says in her book on the flour of the mountains, rye is slow.</p>",
            "Ada Baker",
        ),
        ("<label><input type='checkbox'> Buy yeast</label>", "Buy yeast"),
        ("<p><a id='x'/>An anchor swallowed this part.</p><p>And this.</p>", "An anchor swallowed this part."),
        ("<h3><button aria-expanded='false'>How long does it keep?</button></h3>", "How long does it keep?"),
        ("<details><summary>Why steam?</summary>For the crust.</details>", "Why steam?"),
    ],
)
def test_parts_that_rules_lose_come_out(part, expected):
    assert expected in text(f"<main>{PROSE}{part}{PROSE}</main>")


def test_open_anchors_do_not_make_a_page_of_links():
    body = "".join(f"<div class='section'><h2><a id='s{i}'/>Part {i}</h2>{PROSE}{LIST}</div>" for i in range(5))
    found = text(f"<div class='book'>{body}</div>")
    assert found.count("Bread needs only flour") == 5
    assert found.count("Add the water slowly.") == 5


@pytest.mark.parametrize(
    "part",
    [
        "<p>Ada Baker <time>5 May 2020</time></p>".replace("Ada Baker ", ""),
        "<figure><img src='b.jpg'><figcaption>5 May 2020</figcaption></figure>",
        "<aside class='related'>5 May 2020</aside>",
        "<aside><a href='/x'>5 May 2020</a></aside>",
        "<form><label>5 May 2020 <input></label></form>",
        "<div class='share'><a class='twitter' href='/t'>5 May 2020</a></div>",
        "<div class='toc'><p>5 May 2020</p></div>",
        "<div class='highlight'><table><tr><td class='linenos'>5 May 2020</td><td><pre>x</pre></td></tr></table></div>",
    ],
)
def test_what_is_about_the_page_stays_out(part):
    assert "5 May 2020" not in text(f"<div><main>{PROSE}{part}{PROSE}</main></div>")


@pytest.mark.parametrize("engine", ["resiliparse", "trafilatura"])
@pytest.mark.parametrize("space", ["\u00a0", "&nbsp;", "&#160;", "&#xA0;", "\u202f", "&#xa0;&#173;"])
def test_no_break_spaces_are_spaces_and_soft_hyphens_go(engine, space):
    found = text(
        f"<main>{PROSE}<p>Das Bäcker\u00adhand&shy;werk&#xAD; ist{space}alt genug und die Straße lang, sagt man.</p></main>",
        engine=engine,
    )
    assert "Bäckerhandwerk" in found
    assert "ist alt" in found
    assert not set("\u00a0\u202f\u00ad") & set(found)


def test_entities_in_code_stay_what_they_say():
    assert "&nbsp; &shy; &#1605;" in text(f"<main>{PROSE}<pre>&amp;nbsp; &amp;shy; &amp;#1605;</pre></main>")
    assert "م ص" in text(f"<main>{PROSE}<p>&#1605; &#x635;</p></main>")


@pytest.mark.parametrize(
    "body",
    [
        f"<div class='single-post' id='empty'></div><div class='wide'>{PROSE}{PROSE}</div>",
        f"<div id='navigation-container'><div>{PROSE}{PROSE}</div></div>",
        f"<div><article class='hentry promoted'>{PROSE}{PROSE}</article></div>",
        f"<div><aside class='everything'><section>{PROSE}{PROSE}</section></aside></div>",
        f"<noscript><div>{PROSE}{PROSE}</div></noscript>",
        f"<div class='menu off-canvas-wrap'><div class='related'>{PROSE}{PROSE}</div></div>",
    ],
)
def test_a_page_whose_boxes_are_misnamed_has_a_second_look(body):
    assert text(body).count("Bread needs only flour") == 2


def test_a_page_of_menus_has_no_text():
    assert (
        text(f"<nav>{MENU}</nav><div class='menu'>{MENU}</div><footer><p>All rights reserved by nobody at all.</p></footer>")
        == ""
    )
