// One run: what is known of it at first, and everything it tells afterwards.

import { get, postForm, Refusal } from "./api.js";
import { drawCurve, duration, find, make, number } from "./parts.js";

const MOST_LINES = 200;
const MOST_POINTS = 2000;
const MOST_VALIDATIONS = 6;
const OVER = ["completed", "error", "cancelled"];

export class RunView {
  constructor(jobId, onChange) {
    this.jobId = jobId;
    this.onChange = onChange;
    this.points = [];
    this.uploads = new Map();
  }

  async open() {
    const known = await get(`/api/training/summary?job_id=${this.jobId}`);
    for (const id of ["pictures", "log", "published", "figures"]) find(id).replaceChildren();
    find("said").textContent = "";
    find("title").textContent = known.config_name || `Run ${this.jobId}`;
    this.showStatus(known.status, known.detail);
    this.showProgress(known.progress ?? {});
    this.points = known.curve;
    known.uploads.forEach((upload) => this.noteUpload(upload));
    known.notes.forEach((event) => this.addLine(event));
    known.validations.forEach((event) => this.addPictures(event));
    this.paint();
    this.source = new EventSource(`/api/training/events/stream?job_id=${this.jobId}&since_index=${known.last_event}`);
    for (const type of ["training.metric", "training.progress", "training.validation", "training.checkpoint", "publish.status",
      "script.status", "notification", "error", "job.status", "training.status", "lifecycle.stage"]) {
      this.source.addEventListener(type, (message) => this.take(JSON.parse(message.data)));
    }
    find("run").hidden = false;
    find("prefect").hidden = !known.prefect_url;
    if (known.prefect_url) find("prefect").href = known.prefect_url;
  }

  close() {
    this.source?.close();
    cancelAnimationFrame(this.frame);
  }

  take(event) {
    if (event.type === "training.metric") this.points.push([event.data.step, event.data.loss]);
    if (event.type === "training.progress") this.showProgress({ ...event.data, ...event.progress.metrics, eta: event.progress.eta_seconds });
    if (event.type === "training.validation") this.addPictures(event);
    if (event.type === "publish.status") this.noteUpload(event.data);
    if (event.type === "job.status") {
      this.showStatus(event.data.status, event.data.message?.startsWith("Job ") ? "" : event.data.message);
      this.onChange();
    }
    if (event.type === "lifecycle.stage" && !this.isOver) find("state").textContent = `${this.status}: ${event.stage.label}`;
    if (!["training.metric", "training.progress", "publish.status", "lifecycle.stage"].includes(event.type)) this.addLine(event);
    this.frame ??= requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.frame = undefined;
    if (this.points.length > MOST_POINTS) this.points = this.points.filter((_, place) => place % 2 === 0);
    find("loss-range").textContent = drawCurve(find("loss"), this.points) || "No step was made yet.";
    const rows = [...this.uploads.values()].map((upload) => {
      const row = make("tr");
      const state = upload.verified ? "verified" : upload.state;
      row.append(make("td", upload.what), make("td", upload.destination), make("td", state, { class: state }), make("td", upload.uri ?? upload.message ?? ""));
      return row;
    });
    find("published").replaceChildren(...rows);
  }

  showStatus(status, detail) {
    this.status = status;
    this.isOver = OVER.includes(status);
    find("state").textContent = detail && detail !== status ? `${status}: ${detail}` : status;
    for (const id of ["validate", "checkpoint"]) find(id).disabled = status !== "running";
    find("stop").disabled = this.isOver;
  }

  showProgress(progress) {
    const bar = find("progress");
    bar.value = progress.percent ?? 0;
    const facts = [
      ["Step", progress.step === undefined ? "" : `${progress.step} of ${progress.total_steps}`],
      ["Loss", number(progress.loss)],
      ["Learning rate", number(progress.learning_rate, 3)],
      ["Steps/s", number(progress.steps_per_s, 3)],
      ["Left", duration(progress.eta)],
    ].filter(([, value]) => value);
    find("figures").replaceChildren(...facts.map(([name, value]) => {
      const pair = make("div");
      pair.append(make("dt", name), make("dd", value));
      return pair;
    }));
  }

  noteUpload(upload) {
    const key = `${upload.what} ${upload.destination}`;
    this.uploads.delete(key);
    this.uploads = new Map([[key, upload], ...this.uploads]);
  }

  addPictures(event) {
    const row = make("div", undefined, { class: "row" });
    const prompts = event.validation?.prompts ?? [];
    [...event.images, ...event.videos].forEach((picture, place) => {
      row.append(make("img", undefined, { src: picture.src, alt: prompts[place] ?? event.title, title: prompts[place] ?? "" }));
    });
    if (!row.childElementCount) return;
    const figure = make("figure");
    figure.append(row, make("figcaption", event.title));
    find("pictures").prepend(figure);
    [...find("pictures").children].slice(MOST_VALIDATIONS).forEach((old) => old.remove());
  }

  addLine(event) {
    const line = make("li", undefined, { class: event.severity });
    line.append(make("time", new Date(event.timestamp).toLocaleTimeString(), { datetime: event.timestamp }), event.message);
    const log = find("log");
    const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
    log.append(line);
    while (log.childElementCount > MOST_LINES) log.firstElementChild.remove();
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  }

  async order(path, done) {
    const said = find("said");
    try {
      await postForm(path, { job_id: this.jobId });
      said.textContent = done;
      said.className = "";
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      said.textContent = error.message;
      said.className = "error";
    }
  }
}
