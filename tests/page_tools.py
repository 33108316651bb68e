"""Figures alone on a page, opened from a file: for tests of what they do in a browser."""

from contextlib import contextmanager

GROUND = {"light": "#fff", "dark": "#14181e"}
CONTRAST = """() => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3)
    .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = light(getComputedStyle(document.querySelector('.pa-figure')).backgroundColor);
  const words = [...document.querySelectorAll('.pa-figure text, .pa-figure :is(div, span, label, button, select)')]
    .filter((n) => [...n.childNodes].some((c) => c.nodeType === 3 && c.data.trim()));
  return words.map((n) => {
    const style = getComputedStyle(n);
    const ink = light(n instanceof SVGElement ? style.fill : style.color);
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
  });
}"""
"""WCAG contrast of every text against the figure's ground."""


@contextmanager
def opened(browser, folder, height=900):
    """Gives ``show(*figures, theme=, width=)``; at the end no request went elsewhere and nothing complained."""
    foreign, complaints, contexts = [], [], []

    def show(*figures, theme="light", width=1280, **context):
        page = browser.new_context(viewport={"width": width, "height": height}, **context).new_page()
        contexts.append(page.context)
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or foreign.append(request.url))
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        (folder / "page.html").write_text(
            f'<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8"><title>figures</title>'
            f'<meta name="viewport" content="width=device-width"><body style="background:{GROUND[theme]}">'
            + "\n".join(one.static_html() for one in figures),
            encoding="utf-8",
        )
        page.goto((folder / "page.html").as_uri())
        page.wait_for_function(f"document.querySelectorAll('[data-redraw-ms], [data-drawn]').length === {len(figures)}")
        return page

    yield show
    for context in contexts:
        context.close()
    assert foreign == []
    assert complaints == []
