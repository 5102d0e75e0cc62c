(() => {
  "use strict";

  // Theme: as the system has it until the reader chooses; the choice is kept where that is allowed.
  const MODES = ["auto", "light", "dark"];
  const KEY = "a3cjax-report-theme";
  const button = document.getElementById("theme");
  const remember = (mode) => {
    try {
      localStorage.setItem(KEY, mode);
    } catch {
      // A file opened from disk may have no storage: the choice then lasts as long as the page.
    }
  };
  const recall = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  const apply = (mode) => {
    document.documentElement.dataset.theme = mode;
    button.querySelector("span").textContent = mode;
  };
  apply(MODES.includes(recall()) ? recall() : "auto");
  button.hidden = false;
  button.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme;
    const next = MODES[(MODES.indexOf(now) + 1) % MODES.length];
    apply(next);
    remember(next);
  });

  // Tables: a button in each heading sorts; numbers begin with the largest, empty cells come last.
  const compare = (isNumber, direction) => (a, b) => {
    if (a.value === "" || b.value === "") {
      return (a.value === "") - (b.value === "");
    }
    const order = isNumber ? a.value - b.value : a.value.localeCompare(b.value);
    return direction * order;
  };
  const sort = (table, heading, index) => {
    const isNumber = heading.classList.contains("number");
    const before = heading.getAttribute("aria-sort");
    const first = isNumber ? "descending" : "ascending";
    const second = isNumber ? "ascending" : "descending";
    const order = before === first ? second : first;
    for (const other of heading.parentElement.children) {
      other.removeAttribute("aria-sort");
    }
    heading.setAttribute("aria-sort", order);
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, value: row.cells[index].dataset.value }));
    rows.sort(compare(isNumber, order === "ascending" ? 1 : -1));
    body.append(...rows.map(({ row }) => row));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    if (table.tBodies[0].rows.length < 2) {
      continue;
    }
    [...table.tHead.rows[0].cells].forEach((heading, index) => {
      const sorter = document.createElement("button");
      sorter.type = "button";
      sorter.textContent = heading.textContent;
      sorter.addEventListener("click", () => sort(table, heading, index));
      heading.replaceChildren(sorter);
    });
  }
})();
