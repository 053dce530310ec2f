// What makes the pages more pleasant. They work without it.
"use strict";
document.documentElement.classList.add("has-script");

// Copying also works on plain http, where browsers have no clipboard for scripts.
async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* Not allowed: as below. */ }
  }
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "skip";
  document.body.append(field);
  field.select();
  let copied = false;
  try { copied = document.execCommand("copy"); } catch { /* Not copied. */ }
  field.remove();
  return copied;
}

const status = document.createElement("p");
status.className = "skip";
status.setAttribute("role", "status");
document.body.append(status);

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy) {
    const words = button.dataset.words ??= button.textContent;
    const copied = await copy(button.dataset.copy);
    button.focus();
    button.textContent = copied ? "Copied ✓" : "Press Ctrl+C";
    status.textContent = copied ? "Link copied" : "Could not copy";
    if (!copied) document.querySelector("[data-select]")?.select();
    setTimeout(() => { button.textContent = words; }, 2000);
  } else if (button.dataset.share) {
    try { await navigator.share({ title: button.dataset.title, url: button.dataset.share }); } catch { /* Cancelled. */ }
  }
});

for (const button of document.querySelectorAll("[data-share]")) button.hidden = !navigator.share;
for (const field of document.querySelectorAll("[data-select]")) field.addEventListener("focus", () => field.select());

// Times in the visitor's time zone.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
function showLocal(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.title = `${time.textContent} – ${zone}: ${format.format(new Date(time.dateTime))}`;
    time.textContent = format.format(new Date(time.dateTime));
  }
}
showLocal(document);
function localValue(date) {
  const pad = (number, digits = 2) => String(number).padStart(digits, "0");
  return `${pad(date.getFullYear(), 4)}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}T${pad(date.getHours())}:${pad(date.getMinutes())}`;
}
for (const hint of document.querySelectorAll(".zone")) hint.textContent = `Times are in your time zone, ${zone}.`;
for (const input of document.querySelectorAll("input[data-utc]")) {
  // What a browser has restored, after going back, is local already.
  if (input.value && input.value === input.defaultValue) input.value = localValue(new Date(`${input.value}Z`));
  const unix = document.createElement("input");
  unix.type = "hidden";
  unix.name = `${input.name}_unix`;
  input.after(unix);
  input.form.addEventListener("submit", () => {
    const time = input.value ? new Date(input.value).getTime() : NaN;
    unix.value = Number.isNaN(time) ? "" : String(Math.floor(time / 1000));
  });
}

// The second of two taps sends nothing: of a deletion, it would find no link any more.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (Date.now() - (form.sentAt ?? 0) < 1000) event.preventDefault();
  else form.sentAt = Date.now();
});

// Pages that keep themselves up to date, until the server says that there is no more to come.
function outdated() {
  if (live.querySelector(".outdated")) return;
  const note = document.createElement("p");
  note.className = "error outdated";
  note.setAttribute("role", "alert");
  note.textContent = `Not up to date since ${format.format(new Date())}: the server does not answer, or your session has ended.`;
  live.prepend(note);
}
const live = document.querySelector("[data-live]");
const timer = live && setInterval(async () => {
  if (document.hidden) return;
  try {
    const response = await fetch(location.href, { redirect: "error" });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.querySelector("#live");
    if (!response.ok || !fresh) return outdated();
    showLocal(fresh);
    // A screen reader reads alerts again that come anew.
    if (live.innerHTML !== fresh.innerHTML) live.replaceChildren(...fresh.childNodes);
    if (!fresh.dataset.live) clearInterval(timer);
  } catch { outdated(); }
}, Number(live.dataset.live) * 1000);

document.querySelector("[data-all]")?.addEventListener("change", (event) => {
  for (const box of document.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
});

// Files can be dropped on the whole box.
for (const box of document.querySelectorAll("[data-drop]")) {
  const input = box.querySelector("input[type=file]");
  const check = () => {
    const isLarge = [...input.files].some((file) => file.size > Number(box.dataset.drop));
    input.setCustomValidity(isLarge ? "The file is too large." : "");
  };
  input.addEventListener("change", check);
  for (const kind of ["dragover", "dragleave", "drop"]) box.addEventListener(kind, (event) => {
    event.preventDefault();
    box.classList.toggle("over", kind === "dragover");
    if (kind !== "drop" || !event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    check();
  });
}

document.querySelector("#errors")?.focus();
