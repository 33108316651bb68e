// Draws every formula of the page with KaTeX. Sphinx numbers the equations and links to them (lab/book/site.py writes the markup).
(() => {
  // KaTeX would number these itself; the book numbers through labels.
  const unnumbered = (tex) => tex.replace(/\\(begin|end)\{(align|gather|alignat|equation|multline)\}/g, "\\$1{$2*}")
    .replace(/\\(begin|end)\{multline\*\}/g, "\\$1{gather*}");
  const macros = {
    "\\R": "\\mathbb{R}", "\\E": "\\mathbb{E}",
    "\\sign": "\\operatorname{sign}", "\\argmin": "\\operatorname*{arg\\,min}",
  };
  const draw = (node) => {
    const display = node.matches("div.math");
    const target = (display && node.querySelector(".tex")) || node;
    let tex = target.textContent.replace(/\\mathbb\s*\{?1\}?/g, "\\mathbf{1}"); // the fonts have no open 1
    // A line break outside any environment is an aligned block, as Sphinx and LaTeX's split have it.
    if (display && /\\\\/.test(tex) && !/\\begin\{/.test(tex)) tex = `\\begin{split}${tex}\\end{split}`;
    katex.render(display ? unnumbered(tex) : tex, target, { displayMode: display, throwOnError: false, macros, strict: "ignore" });
    if (target.querySelector(".katex-error")) console.error(`maths: ${target.querySelector(".katex-error").title}`);
  };
  const start = () => document.querySelectorAll(".math.notranslate").forEach(draw);
  document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", start) : start();
})();
