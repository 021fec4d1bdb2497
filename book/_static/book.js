// Opened from disk, a browser lets no page read another, so search results come without excerpts.
if (window.location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// What the theme, Sphinx and MathJax leave unsaid to a screen reader or out of the keyboard's reach.
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];

  function sayNames() {
    for (const summary of all(".bd-sidenav details > summary")) {
      const page = summary.closest("li")?.querySelector("a")?.textContent.trim();
      summary.setAttribute("aria-label", `Pages under ${page}`);
    }
    // A signature over several lines is a list of definitions without terms, a bibliography a list of no items.
    for (const node of all(".sig dl, .sig dl > dd")) node.setAttribute("role", "none");
    for (const node of all(".citation-list[role=list]")) node.removeAttribute("role");
  }

  function reachWhatScrolls() {
    for (const node of all(".bd-content :is(.text_html, .math, mjx-container, pre)")) {
      if (node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).overflowX !== "visible") node.tabIndex = 0;
    }
  }

  // Tables made for reading break their lines (book.css), but not inside of [3.7, 6.6] or 40 %.
  function keepIntervals() {
    for (const cell of all(".bd-content table:not(.dataframe) :is(td, td > p)")) {
      if (!cell.childElementCount) {
        cell.textContent = cell.textContent.replace(/\[[^\]]*\]|\S+ %/g, (found) => found.replaceAll(" ", "\u00a0"));
      }
    }
  }

  // A link to something within a folded part opens it.
  function unfold() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    let opened = false;
    for (let node = target?.parentElement; node; node = node.parentElement) {
      if (node.tagName === "DETAILS" && !node.open) opened = node.open = true;
    }
    if (opened) target.scrollIntoView();
  }

  window.addEventListener("hashchange", unfold);
  window.addEventListener("load", () => {
    unfold();
    sayNames();
    keepIntervals();
    reachWhatScrolls();
    window.MathJax?.startup?.promise?.then(reachWhatScrolls);
  });
  window.addEventListener("resize", reachWhatScrolls);
})();

// Paper is white: a page is printed in the light scheme, whatever the reader looks at.
(() => {
  const page = document.documentElement;
  let theme;
  window.addEventListener("beforeprint", () => {
    theme = page.dataset.theme;
    page.dataset.theme = "light";
  });
  window.addEventListener("afterprint", () => {
    page.dataset.theme = theme;
  });
})();
