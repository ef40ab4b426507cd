// The page: who is there, which runs there are, and the one that is looked at.

import { get, post, Refusal } from "./api.js";
import { find, make } from "./parts.js";
import { RunView } from "./run.js";

const LOOK_EVERY_MS = 5000;
let view;

async function enter() {
  const who = await get("/api/auth/check");
  find("hall").hidden = !who.authenticated;
  find("door").hidden = who.authenticated;
  find("leave").hidden = !who.user_id;
  find("who").textContent = who.user_id ? who.username : "";
  if (who.authenticated) return look();
  const setup = await get("/api/auth/setup/status");
  find("setup").hidden = !setup.needs_setup;
  find("login").hidden = setup.needs_setup;
  document.querySelector("#door form:not([hidden]) input").focus();
}

async function look() {
  const { jobs } = await get("/api/cloud/jobs?limit=50");
  find("none").hidden = jobs.length > 0;
  const wanted = location.hash.slice(1);
  const shown = jobs.find((job) => job.job_id === wanted) ?? jobs[0];
  const hadFocus = document.activeElement?.dataset?.job;
  find("runs").replaceChildren(...jobs.map((job) => row(job, job === shown)));
  document.querySelector(`#runs [data-job="${hadFocus}"]`)?.focus();
  if (shown && view?.jobId !== shown.job_id) await show(shown.job_id);
}

function row(job, isShown) {
  const button = make("button", job.config_name || `Run ${job.job_id}`, { type: "button", "aria-current": isShown, "data-job": job.job_id });
  const percent = job.progress?.percent;
  const state = percent !== undefined && job.status === "running" ? `${job.status}, ${Math.round(percent)} %` : job.status;
  button.append(make("small", `${state} · ${new Date(job.created_at).toLocaleString()}`));
  button.addEventListener("click", () => { location.hash = job.job_id; });
  const item = make("li");
  item.append(button);
  return item;
}

async function show(jobId) {
  view?.close();
  view = new RunView(jobId, look);
  await view.open();
}

function onSubmit(id, path) {
  find(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(event.target));
    if ("remember_me" in fields) fields.remember_me = true;
    try {
      await post(path, fields);
      find("refused").textContent = "";
      event.target.reset();
      await enter();
    } catch (error) {
      find("refused").textContent = error.message;
    }
  });
}

onSubmit("login", "/api/auth/login");
onSubmit("setup", "/api/auth/setup/first-admin");
find("leave").addEventListener("click", async () => {
  await post("/api/auth/logout");
  location.reload();
});
find("validate").addEventListener("click", () => view.order("/api/training/validation/run", "Asked: the pictures are drawn after the next step."));
find("checkpoint").addEventListener("click", () => view.order("/api/training/checkpoint/run", "Asked: it is saved after the next step."));
find("stop").addEventListener("click", () => find("sure").showModal());
find("sure").addEventListener("close", () => {
  if (find("sure").returnValue === "stop") view.order("/api/training/cancel", "Asked: it saves a checkpoint and ends.");
  find("stop").focus();
});
addEventListener("hashchange", look);

async function watch() {
  try {
    if (!find("hall").hidden && !document.hidden) await look();
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) {
      view?.close();
      view = undefined;
      await enter();
    }
  }
}
await enter();
setInterval(watch, LOOK_EVERY_MS);
