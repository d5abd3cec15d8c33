// What the pages do beyond plain HTML. Every page also works without this script.
"use strict";
(() => {
  const localTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const seconds = (count) => new Promise((resolve) => setTimeout(resolve, count * 1000));
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  /** Shows local times and labels copy buttons below `root`. Live rows and refreshed parts need it as well. */
  function prepare(root) {
    for (const button of all("[data-copy]", root)) button.setAttribute("aria-live", "polite");
    for (const time of all("time[datetime]:not([title])", root)) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      Object.assign(time, { title: time.textContent.trim(), textContent: localTime.format(at) });
    }
  }

  function generate(button) {
    const input = button.form.elements[button.dataset.generate];
    input.type = "text";
    input.value = "whsec_" + btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(24))));
  }

  async function copy(button) {
    const label = button.textContent;
    if (button.dataset.copied) return;
    button.dataset.copied = "yes";
    button.textContent = (await copied(document.getElementById(button.dataset.copy))) ? "Copied" : "Press Ctrl+C";
    await seconds(2);
    button.textContent = label;
    delete button.dataset.copied;
  }

  async function copied(source) {
    try {
      await navigator.clipboard.writeText(source.value ?? source.textContent.trim());
      return true;
    } catch {
      // Browsers offer no clipboard API over plain HTTP.
      source.select ? source.select() : getSelection().selectAllChildren(source);
      return document.execCommand("copy");
    }
  }

  function follow(rows) {
    const state = document.getElementById("live-state") ?? {};
    let stream, retry;
    const open = () => {
      stream = new EventSource(rows.dataset.live);
      stream.onopen = () => (state.textContent = "Live");
      stream.onerror = () => {
        if (state.textContent !== "Reconnecting…") state.textContent = "Reconnecting…";
        // The browser reconnects by itself, but not after a status other than 200.
        if (stream.readyState === EventSource.CLOSED) retry = setTimeout(open, 5000);
      };
      stream.addEventListener("delivery", (event) => insert(rows, event.data));
    };
    addEventListener("pagehide", () => (clearTimeout(retry), stream.close()));
    addEventListener("pageshow", (event) => event.persisted && open());
    open();
  }

  function insert(rows, html) {
    const row = new DOMParser().parseFromString(`<table>${html}</table>`, "text/html").querySelector("tr");
    if (!row) return;
    prepare(row);
    row.classList.add("fresh");
    rows.querySelector(".empty-row")?.remove();
    const known = row.id && document.getElementById(row.id);
    known ? known.replaceWith(row) : rows.prepend(row);
    while (rows.rows.length > (Number(rows.dataset.max) || 100)) rows.lastElementChild.remove();
  }

  function preset(input) {
    const select = input.form.elements.namedItem("format");
    // Each option names the hosts whose URLs preset it. One that begins with a dot stands for all hosts below it.
    const fitting = () => {
      const text = input.value.trim();
      if (!URL.canParse(text)) return undefined;
      const { hostname, pathname } = new URL(text), host = hostname.replace(/\.$/, "");
      const is_at = (entry) => entry && (entry === host || (entry.startsWith(".") && host.endsWith(entry)));
      const format = [...select.options].find((option) => option.dataset.hosts?.split(" ").some(is_at))?.value;
      if (format !== "discord") return format;
      // Discord also takes messages in Slack's format, and has pages that are no webhooks.
      return /\/slack\/?$/.test(pathname) ? "slack" : /^\/api\/(.+\/)?webhooks\//.test(pathname) ? format : undefined;
    };
    let touched = false, preset = fitting(), before = select.value;
    select.addEventListener("change", () => (touched = true));
    input.addEventListener("input", () => {
      if (touched || fitting() === preset) return;
      preset = fitting();
      select.value = preset ?? before;
    });
  }

  async function refresh(part) {
    const focusable = (root) => all("a, button, input, select, textarea, summary, [tabindex]", root);
    for (let shown; part?.dataset.refresh && part.isConnected; ) {
      await seconds(part.dataset.refresh);
      // Replacing the part would lose what somebody is typing into it.
      if (document.hidden || part.querySelector(":is(input, select, textarea):focus")) continue;
      const page = await fetch(location.href, { cache: "no-store" }).then((r) => r.ok && r.text()).catch(() => null);
      if (!page) continue;
      const fresh = new DOMParser().parseFromString(page, "text/html").getElementById(part.id);
      if (!fresh) return;
      if (fresh.outerHTML === shown) continue;
      shown = fresh.outerHTML;
      prepare(fresh);
      all("details", fresh).forEach((it, index) => (it.open = all("details", part)[index]?.open ?? it.open));
      const focused = focusable(part).indexOf(document.activeElement);
      const id = focused >= 0 && document.activeElement.id;
      part.replaceWith(fresh);
      if (focused >= 0) (document.getElementById(id) ?? focusable(fresh)[focused])?.focus({ preventScroll: true });
      part = fresh;
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-generate], [data-copy]");
    if (button) event.preventDefault(), "generate" in button.dataset ? generate(button) : copy(button);
  });
  document.addEventListener("submit", (event) => {
    if ("confirm" in event.target.dataset && !confirm(event.target.dataset.confirm)) event.preventDefault();
  });
  prepare(document);
  all("[data-live]").forEach(follow);
  all("[data-refresh]").forEach(refresh);
  all("input[data-format-preset]").forEach(preset);
})();
