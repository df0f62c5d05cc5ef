"""Writes the tables into BENCHMARKS.md and draws the figures."""

from . import figures, report

BENCH, SOAK = "<!-- written by `make bench`: begin -->", "<!-- written by `benches/soak.py --write`: begin -->"
END = "<!-- end -->"


def write(root, results):
    """Publishes only a whole run, because parts of different days cannot be compared."""
    drawings = root / "benches/figures"
    drawings.mkdir(exist_ok=True)
    (drawings / "scrape.svg").write_text(figures.scrape_chart(results["scrapes"]))
    (drawings / "growth.svg").write_text(figures.growth_chart(results["growth"]))
    put(root, BENCH, f"Taken on {results['machine']}.\n\n{report.text(results)}")


def put(root, begin, text):
    """Replaces the text of BENCHMARKS.md between `begin` and the next end mark."""
    page = root / "BENCHMARKS.md"
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{END}{after}")
