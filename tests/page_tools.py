"""Figures alone on a page, opened from a file: for tests of what they do in a browser."""

from contextlib import contextmanager

GROUND = {"light": "#fff", "dark": "#14181e"}
OWN = ("file:", "data:", "blob:")  # what a page may ask for


@contextmanager
def opened(browser, folder, height=900):
    """Gives ``show(*figures, theme=, width=)``; at the end no request went elsewhere and nothing complained."""
    foreign, complaints, contexts = [], [], []

    def show(*figures, theme="light", width=1280, **context):
        page = browser.new_context(viewport={"width": width, "height": height}, **context).new_page()
        contexts.append(page.context)
        page.on("request", lambda request: request.url.startswith(OWN) or foreign.append(request.url))
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
