"""Puts the figures where people read them: the tables of BENCHMARKS.md, and the drawings beside it."""

from . import figures, report

BENCH, SOAK = "<!-- written by `make bench`: begin -->", "<!-- written by `benches/soak.py --write`: begin -->"
END = "<!-- end -->"


def write(root, results):
    """Only a whole run may be published: half of it from another day would compare what was never side by side."""
    drawings = root / "benches/figures"
    drawings.mkdir(exist_ok=True)
    (drawings / "scrape.svg").write_text(figures.scrape_chart(results["scrapes"]))
    (drawings / "growth.svg").write_text(figures.growth_chart(results["growth"]))
    put(root, BENCH, f"Taken on {results['machine']}.\n\n{report.text(results)}")


def put(root, begin, text):
    """In the place of what stands in BENCHMARKS.md after `begin`."""
    page = root / "BENCHMARKS.md"
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{END}{after}")
