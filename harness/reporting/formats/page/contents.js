// The table of contents: folded where there is little room, and showing where the reader is.
{
  document.documentElement.classList.add("scripted");
  const folding = document.querySelector("nav details");
  const narrow = matchMedia("(max-width: 68.99rem)");
  const fold = () => { folding.open = !narrow.matches; };
  narrow.addEventListener("change", fold);
  fold();

  const links = new Map([...document.querySelectorAll("nav li a")].map((link) => [link.hash.slice(1), link]));
  const sections = [...links.keys()].map((id) => document.getElementById(id));
  let waiting = false;
  const mark = () => {
    waiting = false;
    const here = sections.findLast((section) => section.getBoundingClientRect().top < innerHeight / 4);
    for (const link of links.values()) link.removeAttribute("aria-current");
    if (here) links.get(here.id).setAttribute("aria-current", "true");
  };
  addEventListener("scroll", () => {
    if (!waiting) requestAnimationFrame(mark);
    waiting = true;
  }, { passive: true });
  folding.addEventListener("click", (event) => {
    if (narrow.matches && event.target.closest("a")) folding.open = false;
  });
}
