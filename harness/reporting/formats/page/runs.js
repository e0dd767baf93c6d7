// From a number to its run: what a run was configured with is built when somebody looks; several seeds are offered in a list.
{
  const source = document.getElementById("facts");
  let facts = null;
  const fact = (run) => {
    facts ??= JSON.parse(source.textContent);
    const places = facts.runs[run];
    return Array.from({ length: places.length / 2 }, (_, at) => [facts.texts[places[2 * at]], facts.texts[places[2 * at + 1]]]);
  };

  function fill(details) {
    const list = document.createElement("dl");
    for (const [name, value] of fact(Number(details.dataset.run))) {
      const entry = document.createElement("div");
      entry.append(Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value }));
      list.append(entry);
    }
    details.querySelector("p, dl").replaceWith(list);
  }
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details[data-run]") && event.target.open) fill(event.target);
  }, true); // toggle events do not bubble

  function follow() {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (!target) return;
    if (target.closest("[hidden]")) {
      const scope = target.closest("table")?.dataset.scope ?? target.closest("figure")?.querySelector("table")?.dataset.scope;
      document.querySelector(`[data-filters="${scope}"]`)?.dispatchEvent(new Event("reveal"));
      target.scrollIntoView();
    }
    const fold = target.closest("details.fold");
    if (fold) fold.open = true; // a footnote in a folded table
    const details = target.querySelector("details[data-run]");
    if (details) details.open = true;
  }
  addEventListener("hashchange", follow);
  follow();

  const seeds = document.getElementById("seeds");
  document.addEventListener("click", (event) => {
    const number = event.target.closest?.("a.number");
    const links = number?.parentElement.querySelectorAll(".seeds a");
    if (event.target.closest?.("#seeds a")) seeds.hidePopover();
    if (!links?.length || !seeds.showPopover || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    seeds.replaceChildren(...[...links].map((link) => {
      const details = document.querySelector(`${link.hash} details`);
      const seed = fact(Number(details.dataset.run)).find(([name]) => name === "seed");
      const item = document.createElement("a");
      item.href = link.hash;
      item.textContent = [details.querySelector("summary").textContent, ...(seed ? [`seed ${seed[1]}`] : []), `run ${link.textContent}`].join(" · ");
      return item;
    }));
    seeds.showPopover();
    const [place, size] = [number.getBoundingClientRect(), seeds.getBoundingClientRect()];
    seeds.style.left = `${Math.max(8, Math.min(place.left, innerWidth - size.width - 8))}px`;
    seeds.style.top = `${place.bottom + size.height + 12 < innerHeight ? place.bottom + 4 : Math.max(8, place.top - size.height - 4)}px`;
    seeds.querySelector("a").focus({ preventScroll: true });
  });

  document.addEventListener("pointerover", (event) => { // a mark says what its footnote says
    const mark = event.target.closest?.("a.mark");
    if (mark && !mark.title) mark.title = document.getElementById(mark.hash.slice(1)).textContent;
  });
}
