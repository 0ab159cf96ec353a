"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const table = get("table"), filter = get("filter"), show = get("show"), toggle = get("toggle"), copy = get("copy");
  const rows = table ? [...table.tBodies[0].rows] : [];
  const parts = [...document.querySelectorAll("details.trial")];
  const sorted = { column: 0, descending: false };

  // Numbers sort as numbers, words as words; what is missing goes last either way.
  const key = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const numbers = [Number(a), Number(b)];
    return numbers.some(Number.isNaN) ? a.localeCompare(b, undefined, { numeric: true }) : numbers[0] - numbers[1];
  };
  const sort = (column, descending) => {
    const keys = new Map(rows.map((row) => [row, key(row, column)]));
    const order = [...rows].sort((a, b) => {
      const [left, right] = [keys.get(a), keys.get(b)];
      if (left === "" || right === "") return (left === "") - (right === "");
      return compare(left, right) * (descending ? -1 : 1);
    });
    table.tBodies[0].append(...order);
    [...table.tHead.rows[0].cells].forEach((cell, at) => {
      if (at === column) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    Object.assign(sorted, { column, descending });
  };
  const narrow = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of rows) {
      const text = `${row.textContent} ${row.dataset.words}`.toLowerCase();
      const kept = words.every((word) => text.includes(word)) &&
        (!show.value || (show.value === "look" ? row.dataset.look : row.dataset.status === show.value));
      row.hidden = !kept;
      get(row.dataset.id).hidden = !kept;
      left += kept ? 1 : 0;
    }
    const all = `${rows.length} trial${rows.length === 1 ? "" : "s"}`;
    get("count").textContent = left === rows.length ? all : `${left} of ${all}`;
    get("none").hidden = left > 0;
  };
  const open = () => {
    const part = get(decodeURIComponent(location.hash.slice(1)));
    if (part && part.matches("details.trial")) {
      part.hidden = false; // a link leads there even past a filter
      part.open = true;
      part.scrollIntoView();
    }
  };
  const label = () => {
    const every = parts.every((part) => part.open);
    toggle.textContent = every ? "Close all" : "Open all";
    toggle.setAttribute("aria-expanded", String(every));
  };

  if (table) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      cell.querySelector("button")?.addEventListener("click", () => {
        sort(column, sorted.column === column && !sorted.descending);
      });
    });
    filter.addEventListener("input", narrow);
    show.addEventListener("change", narrow);
    toggle.addEventListener("click", () => {
      const every = parts.every((part) => part.open);
      parts.forEach((part) => { part.open = !every; });
    });
    parts.forEach((part) => part.addEventListener("toggle", label));
    addEventListener("hashchange", open);
    // A second click on a link to the same trial changes no hash.
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a[href^='#']");
      if (link && link.getAttribute("href") === location.hash) open();
    });
  }
  copy?.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(get("code").textContent);
      copy.textContent = "Copied";
    } catch { // not allowed: leave it selected
      getSelection().selectAllChildren(get("code"));
      copy.textContent = "Selected";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  });

  const version = document.documentElement.dataset.version;
  if (version) {
    const remember = () => sessionStorage.setItem("autolr", JSON.stringify({
      sorted, filter: filter?.value ?? "", show: show?.value ?? "", top: scrollY,
      open: parts.filter((part) => part.open).map((part) => part.id),
      typing: document.activeElement === filter ? [filter?.selectionStart, filter?.selectionEnd] : null,
    }));
    const before = JSON.parse(sessionStorage.getItem("autolr") ?? "null");
    if (before) {
      sessionStorage.removeItem("autolr");
      before.open.forEach((id) => { const part = get(id); if (part) part.open = true; });
      if (table) {
        filter.value = before.filter;
        show.value = before.show;
        if (before.sorted.column < table.tHead.rows[0].cells.length) sort(before.sorted.column, before.sorted.descending);
        narrow();
        if (before.typing) {
          filter.focus({ preventScroll: true });
          filter.setSelectionRange(...before.typing);
        }
      }
      scrollTo({ top: before.top, behavior: "instant" });
    } else open();
    const look = async () => {
      try {
        const answer = await fetch("version", { cache: "no-store" });
        if (answer.ok && (await answer.text()) !== version) {
          remember();
          location.reload();
          return;
        }
        get("watch").textContent = "Watching: this page follows the search.";
      } catch {
        get("watch").textContent = "No longer watched: the command that served this page has ended.";
      }
      setTimeout(look, 2000);
    };
    setTimeout(look, 2000);
  } else open();
})();
