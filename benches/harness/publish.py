"""Puts the figures where people read them: the tables of BENCHMARKS.md, and the drawings beside it."""

from . import figures, report

BEGIN, END = "<!-- written by `make bench`: begin -->", "<!-- end -->"


def write(root, results):
    """Only a whole run may be published: half of it from another day would compare what was never side by side."""
    drawings = root / "benches/figures"
    drawings.mkdir(exist_ok=True)
    (drawings / "scrape.svg").write_text(figures.scrape_chart(results["scrapes"]))
    (drawings / "growth.svg").write_text(figures.growth_chart(results["growth"]))
    page = root / "BENCHMARKS.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = f"Taken on {results['machine']}.\n\n{report.text(results)}"
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")
