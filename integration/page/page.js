// What a page is asked in Chromium. axe-core has been loaded before it.
globalThis.admitPage = (() => {
  const rest = new Map(); // each element's outline and shadow while nothing has the focus
  const reached = new Set(); // by Tab
  const found = []; // on the way
  let skip; // the skip link, and what it leads to
  const all = () => [...document.querySelectorAll("*")];
  const name = (e) => (e.cloneNode(false).outerHTML + e.textContent.trim()).replace(/\s+/g, " ").slice(0, 160);
  const finding = (rule, e, what) => ({ rule, where: e ? name(e) : "the page", what });

  function focusRing(e) {
    const s = getComputedStyle(e);
    const shown = s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 0 && !/, 0\)$|^transparent$/.test(s.outlineColor);
    return {
      outline: shown ? [s.outlineStyle, s.outlineWidth, s.outlineColor].join(" ") : "",
      shadow: s.boxShadow === "none" ? "" : s.boxShadow,
    };
  }

  // Elements that scroll are focusable too in Chromium, though their tabIndex is -1.
  const focusable = (e) => e.tabIndex >= 0 && !e.matches(":disabled") && !e.closest("[inert]") && e.checkVisibility({ visibilityProperty: true });

  // Whether an element is in one that has its own scroll bar at the bottom.
  function scrolls(e) {
    for (; e && e !== document.body; e = e.parentElement) {
      if (e.scrollWidth > e.clientWidth && /auto|scroll/.test(getComputedStyle(e).overflowX)) return true;
    }
    return false;
  }

  // What has the focus for the first time.
  function reach(e) {
    if (reached.has(e)) return;
    if (reached.size === 0) {
      const main = document.querySelector("main"), box = e.getBoundingClientRect();
      const target = e.matches("a[href^='#']") && document.getElementById(e.hash.slice(1));
      if (target && (target === main || target === main?.firstElementChild)) skip = { link: e, target };
      if (!skip) found.push(finding("skip-link-first", e, "is what Tab reaches first, and is no link to the main part"));
      else if (box.left < 0 || box.top < 0 || box.width < 2 || box.height < 2) found.push(finding("skip-link-first", e, "is not seen while it has the focus"));
    }
    reached.add(e);
    const ring = focusRing(e), before = rest.get(e);
    const seen = (ring.outline && ring.outline !== before.outline) || (ring.shadow && ring.shadow !== before.shadow);
    if (!seen) found.push(finding("focus-visible", e, "looks the same with the focus as without it"));
  }

  return {
    open(yes) {
      for (const d of document.querySelectorAll("details")) d.open = yes;
    },

    // Every rule of axe but those of level AAA: it has rules that are off by default, such as
    // those of WCAG 2.2. What axe cannot decide is a finding, so that nothing is left to trust;
    // but for the colours of what has to be scrolled to, which a wider view shows.
    async axe(colours) {
      const scrolledTo = (node) => node.any.some((check) => check.data?.messageKey === "elmPartiallyObscured")
        && scrolls(document.querySelector(node.target.at(-1)));
      const left = ["wcag2aaa", "deprecated", ...(colours ? [] : ["cat.color"])];
      const rules = axe.getRules().filter((r) => !r.tags.some((tag) => left.includes(tag)));
      const result = await axe.run(document, { runOnly: { type: "rule", values: rules.map((r) => r.ruleId) }, resultTypes: ["violations", "incomplete"] });
      return [...result.violations, ...result.incomplete].flatMap((rule) =>
        rule.nodes.filter((node) => !scrolledTo(node)).map((node) => ({ rule: rule.id, where: node.target.join(" "), what: node.failureSummary })));
    },

    // A page without a viewport for small screens is laid out wider than they are.
    overflow(width) {
      const root = document.documentElement;
      if (root.clientWidth > width) return [finding("scroll", null, `is laid out for ${root.clientWidth} px`)];
      if (Math.max(root.scrollWidth, document.body.scrollWidth) <= width) return [];
      const past = all().filter((e) => e.getBoundingClientRect().right > width + 1 && !scrolls(e.parentElement));
      return [finding("scroll", past.at(-1), `reaches past the right edge: the page is ${root.scrollWidth} px wide`)];
    },

    // To be called before the first Tab. It returns how many elements Tab may reach at most.
    watch() {
      for (const e of all()) rest.set(e, focusRing(e));
      document.addEventListener("focusin", (event) => reach(event.target));
      return all().filter((e) => focusable(e) || scrolls(e)).length;
    },

    tabbed: () => found,

    missed() {
      return all().filter((e) => focusable(e) && !reached.has(e)).map((e) => finding("tab-reaches", e, "is not reached by Tab"));
    },

    // To be called before Enter and another Tab. It reports whether there is a skip link.
    focusSkipLink() {
      skip?.link.focus();
      return Boolean(skip);
    },

    skipped() {
      const e = document.activeElement;
      const within = skip.target === e || skip.target.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING;
      return within || e === document.body ? [] : [finding("skip-link-works", e, "is reached by Tab after the skip link, and stands before the main part")];
    },
  };
})();
