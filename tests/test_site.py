"""The hooks that build the documentation, and what they refuse."""

import re
from types import SimpleNamespace

import nbformat
import pytest
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from tests.documents import ROOT, load_hook

docstrings, equations, notebooks = map(load_hook, ["docstrings", "equations", "notebooks"])
offline, source_code, tables = map(load_hook, ["offline", "source_code", "tables"])
repository_links = load_hook("repository_links")


def page(src_uri: str) -> SimpleNamespace:
    return SimpleNamespace(file=SimpleNamespace(src_uri=src_uri))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = MkDocsConfig()
    config.load_dict(
        {
            "site_name": "site",
            "docs_dir": str(ROOT / "docs"),
            "site_dir": str(tmp_path_factory.mktemp("site")),
            "use_directory_urls": False,
        }
    )
    config.validate()
    config.plugins._current_plugin = "tests"  # what MkDocs sets around a hook
    return config


class TestCode:
    def test_definition_is_shown_without_its_docstring(self):
        code = source_code.read_code(ROOT / "a3cjax/losses.py", "value_loss")
        assert code.startswith("def value_loss(values: Array, returns: Array) -> jax.Array:\n")
        assert "Raises:" not in code
        # The comment between docstring and code stays.
        assert code.splitlines()[-1].strip().startswith("return 0.5 * jnp.square(")

    def test_nested_definition_stands_at_the_left_margin(self):
        code = source_code.read_code(ROOT / "a3cjax/returns.py", "n_step_returns.one_step_back")
        assert code.splitlines()[0] == "def one_step_back(return_t, transition):"
        assert code.splitlines()[-1] == "    return return_tm1, return_tm1"

    def test_decorator_belongs_to_it(self, tmp_path):
        path = tmp_path / "file.py"
        path.write_text("@once\n@twice\ndef f():\n    return 1\n")
        assert source_code.read_code(path, "f") == path.read_text().rstrip()

    def test_line_that_names_code_is_followed_by_it(self):
        line = "[a3cjax/updates.py: make_act](../a3cjax/updates.py)"
        text = source_code.on_page_markdown(f"As:\n\n{line}\n", page("page.md"), None, None)
        assert text.startswith(f"As:\n\n{line}\n\n```python\ndef make_act(agent: Agent")

    def test_link_within_a_sentence_stays_a_link(self):
        text = "See [a3cjax/updates.py: make_act](../a3cjax/updates.py)."
        assert source_code.on_page_markdown(text, page("page.md"), None, None) == text

    @pytest.mark.parametrize("reference", ["a3cjax/losses.py: values_loss", "a3cjax/no.py: f"])
    def test_code_that_is_not_there_fails_the_build(self, reference):
        with pytest.raises(PluginError, match=r"page\.md refers to code that is not there"):
            source_code.on_page_markdown(f"[{reference}](x)", page("page.md"), None, None)


@pytest.fixture(scope="module")
def files(config):
    pages = [
        File.generated(config, "page.md", content="[r](../a3cjax/returns.py)"),
        File.generated(config, "deep/page.md", content="![s](../../results/pong.png)"),
    ]
    return repository_links.on_files(Files(pages), config)


class TestLinks:
    def test_linked_files_are_added(self, files):
        assert files.get_file_from_path("source/a3cjax/returns.py.md") is not None
        assert files.get_file_from_path("source/results/pong.png") is not None
        assert files.get_file_from_path("index.md") is not None
        assert files.get_file_from_path("source/CITATION.cff.md") is not None  # README's

    @pytest.mark.parametrize(
        ("where", "text", "expected"),
        [
            ("page.md", "[r](../a3cjax/returns.py)", "[r](source/a3cjax/returns.py.md)"),
            ("page.md", "[`r`](../a3cjax/returns.py#L3)", "[`r`](source/a3cjax/returns.py.md#L3)"),
            ("deep/page.md", "![s](../../results/pong.png)", "![s](../source/results/pong.png)"),
            ("page.md", "[x](../README.md#results)", "[x](index.md#results)"),
            ("page.md", "`[r](../a3cjax/returns.py)`", "`[r](../a3cjax/returns.py)`"),
            ("page.md", "```\n[r](../a3cjax/returns.py)\n```", None),
            ("page.md", "[other](other.md) [web](https://example.org/a.py)", None),
            ("page.md", "[nothing](../a3cjax/nothing.py)", None),
            ("page.md", "[outside](../../elsewhere.py)", None),
        ],
    )
    def test_links_lead_to_where_files_are(self, files, where, text, expected):
        pointed = repository_links.on_page_markdown(text, page(where), None, files)
        assert pointed == (text if expected is None else expected)

    def test_links_of_the_readme_start_at_the_root(self, config, files):
        files.append(File.generated(config, "fidelity.md", content=""))
        pointed = repository_links.on_page_markdown(
            "[f](docs/fidelity.md) [r](a3cjax/returns.py)", page("index.md"), None, files
        )
        assert pointed == "[f](fidelity.md) [r](source/a3cjax/returns.py.md)"

    def test_lines_of_a_source_file_can_be_linked_to(self):
        content = '<a id="__codelineno-0-12" href="#__codelineno-0-12">'
        source = page("source/a3cjax/returns.py.md")
        source.present_anchor_ids = {"a3cjaxreturnspy"}
        named = repository_links.on_page_content(content, source, None, None)
        assert 'id="L12" href="#L12"' in named
        assert source.present_anchor_ids == {"a3cjaxreturnspy", "L12"}
        assert repository_links.on_page_content(content, page("page.md"), None, None) == content


class TestEquations:
    def test_equation_becomes_mathml(self):
        content = '<p><span class="arithmatex">\\(a &lt; b_t\\)</span></p>'
        rendered = equations.on_page_content(content, page("page.md"), None, None)
        assert rendered.startswith("<p><math")
        assert "&#x0003C;" in rendered or "&lt;" in rendered
        assert "<msub>" in rendered

    def test_block_keeps_to_itself(self):
        content = '<div class="arithmatex">\\[\n\\frac{1}{2}\n\\]</div>'
        rendered = equations.on_page_content(content, page("page.md"), None, None)
        assert re.match(r'<div class="equation"><math [^>]*display="block"', rendered)

    def test_prime_is_raised_once(self):
        content = '<span class="arithmatex">\\(\\theta\'\\)</span>'
        rendered = equations.on_page_content(content, page("page.md"), None, None)
        assert "<mi>&#x003B8;</mi><mo>&#x02032;</mo>" in rendered
        assert "<msup>" not in rendered

    def test_equation_that_fails_fails_the_build(self):
        with pytest.raises(PluginError, match=r"page\.md has an equation that fails: a_b_c"):
            equations.on_page_content(
                '<span class="arithmatex">\\(a_b_c\\)</span>', page("page.md"), None, None
            )


def test_names_in_tables_may_break_and_others_not():
    content = "<td><code>test_a.py::test_b</code> a_b <code>C._d</code></td><p><code>e_f</code></p>"
    expected = (
        "<td><code>test_<wbr>a.py::<wbr>test_<wbr>b</code> a_b <code>C.<wbr>_<wbr>d</code></td>"
        "<p><code>e_f</code></p>"
    )
    assert tables.on_page_content(content, page("page.md"), None, None) == expected


class TestDocstrings:
    def test_indented_equation_keeps_its_lines(self):
        kept = docstrings.keep_layout("Sums.\n\nFor t:\n\n  G = r\n  H = s\n\nArgs:\n  r: rewards.")
        expected = "Sums.\n\nFor t:\n\n```text\n  G = r\n  H = s\n```\n\nArgs:\n  r: rewards."
        assert kept == expected

    def test_aligned_table_keeps_its_columns(self):
        table = "The paper's lines     here\n  act                 `act`"
        assert docstrings.keep_layout(f"A.\n\n{table}") == f"A.\n\n```text\n{table}\n```"

    def test_sections_are_left_to_the_parser(self):
        text = "Sums.\n\nArgs:\n  r: of the step.\n\n  More of it    here."
        assert docstrings.keep_layout(text) == text


class TestOffline:
    @pytest.mark.parametrize(
        "html",
        [
            '<script src="https://cdn.example/x.js"></script>',
            '<link rel="stylesheet" href="//cdn.example/x.css">',
            '<img alt="x" src="http://example.org/x.png">',
            '<img srcset="https://example.org/x.png 2x">',
            '<iframe src="https://example.org"></iframe>',
            "<style>@import 'https://example.org/font.css';</style>",
            '<p style="background: url(https://example.org/x.png)">x</p>',
        ],
    )
    def test_page_that_loads_from_elsewhere_is_found(self, tmp_path, html):
        (tmp_path / "page.html").write_text(f"<html><body>{html}</body></html>")
        assert len(offline.find_external(tmp_path)) == 1
        with pytest.raises(PluginError, match=r"page\.html: "):
            offline.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))

    def test_style_sheet_that_loads_from_elsewhere_is_found(self, tmp_path):
        (tmp_path / "x.css").write_text("@font-face { src: url('https://example.org/f.woff') }")
        assert offline.find_external(tmp_path) == ["x.css: https://example.org/f.woff"]

    def test_links_and_own_files_are_no_loads(self, tmp_path):
        (tmp_path / "page.html").write_text(
            '<link rel="canonical" href="https://example.org/"><a href="https://example.org">x</a>'
            '<script src="assets/x.js"></script><img src="data:image/png;base64,AA==">'
            "<style>p { background: url(x.png) }</style>"
        )
        offline.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))


class TestNotebook:
    NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

    def test_there_is_one(self):
        assert self.NOTEBOOKS

    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
    def test_it_lies_without_outputs(self, path):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None

    def test_what_cells_print_and_draw_is_shown(self):
        cells = [
            nbformat.v4.new_markdown_cell("# Title"),
            nbformat.v4.new_code_cell(
                "draw()",
                outputs=[
                    nbformat.v4.new_output("stream", text="hello\n"),
                    nbformat.v4.new_output("display_data", data={"image/png": "AAAA"}),
                    nbformat.v4.new_output("execute_result", data={"text/plain": "3"}),
                ],
            ),
        ]
        markdown, pictures = notebooks.convert(nbformat.v4.new_notebook(cells=cells), "nb")
        assert list(pictures) == ["nb-0.png"]
        parts = markdown.split("\n\n")
        assert parts[0] == "# Title"
        assert parts[1] == "```python\ndraw()\n```"
        assert parts[2] == "```text\nhello\n```"
        assert parts[3] == "![What the cell draws](nb-0.png)"
        assert parts[4] == "```text\n3\n```"


def test_every_page_is_in_the_navigation_and_every_entry_has_its_page():
    # The build checks it, too; here it takes no time.
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    made = {*repository_links.ROOT_PAGES.values()} | {
        f"notebooks/{path.stem}.md" for path in TestNotebook.NOTEBOOKS
    }
    docs = ROOT / "docs"
    written = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    assert named == written | made


def test_built_site_is_checked_by_a_hook():
    assert "- docs/hooks/offline.py" in (ROOT / "mkdocs.yml").read_text()
    assert (ROOT / "docs" / "hooks" / "offline.py").is_file()
