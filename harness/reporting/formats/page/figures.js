// Figures open on the whole screen: wheel, pinch or + and − zoom, dragging or the arrows move, 0 fits, Esc closes.
{
  const dialog = document.getElementById("zoom");
  const stage = dialog.querySelector(".stage");
  const image = document.createElement("img");
  image.draggable = false;
  const state = { x: 0, y: 0, width: 1, shape: 1 };
  const pointers = new Map();

  function place() {
    image.style.width = `${state.width}px`; // not a scale: lines are drawn anew and stay sharp
    image.style.transform = `translate(${state.x}px, ${state.y}px)`;
  }
  function fit() {
    const [across, down] = [stage.clientWidth - 24, stage.clientHeight - 24];
    state.width = Math.min(across, down * state.shape);
    state.x = (stage.clientWidth - state.width) / 2;
    state.y = (stage.clientHeight - state.width / state.shape) / 2;
    place();
  }
  function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const width = Math.max(80, Math.min(30000, state.width * factor));
    const applied = width / state.width;
    Object.assign(state, { width, x: x - (x - state.x) * applied, y: y - (y - state.y) * applied });
    place();
  }
  function move(across, down) {
    state.x += across;
    state.y += down;
    place();
  }
  function open(picture) {
    image.src = picture.src;
    image.alt = picture.alt;
    state.shape = picture.naturalWidth / picture.naturalHeight || 1.5;
    stage.replaceChildren(image);
    dialog.showModal();
    fit();
  }

  for (const picture of document.querySelectorAll(".picture img")) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Enlarge";
    picture.replaceWith(button);
    button.append(picture);
    button.addEventListener("click", () => open(picture));
  }
  const actions = { in: () => zoom(1.4), out: () => zoom(1 / 1.4), fit, close: () => dialog.close() };
  for (const button of dialog.querySelectorAll("[data-zoom]")) button.addEventListener("click", actions[button.dataset.zoom]);

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.04 : 0.0015)), event.clientX, event.clientY);
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    pointers.set(event.pointerId, now);
    if (!other) return move(now[0] - before[0], now[1] - before[1]);
    const distance = ([x, y]) => Math.hypot(x - other[0], y - other[1]) || 1;
    zoom(distance(now) / distance(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => pointers.delete(event.pointerId));

  const keys = { "+": actions.in, "=": actions.in, "-": actions.out, 0: fit };
  Object.assign(keys, { ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60) });
  dialog.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  addEventListener("resize", () => { if (dialog.open) fit(); });
}
