// Talks to the API as whoever is logged in.

export class Refusal extends Error {
  constructor(status, body) {
    super(typeof body.detail === "string" ? body.detail : "The server did not accept this");
    this.status = status;
    this.code = body.code;
  }
}

export async function get(path) {
  return answer(await fetch(path, { headers: { Accept: "application/json" } }));
}

export async function post(path, body) {
  const headers = { Accept: "application/json", "Content-Type": "application/json" };
  return answer(await fetch(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) }));
}

export async function postForm(path, fields) {
  return answer(await fetch(path, { method: "POST", headers: { Accept: "application/json" }, body: new URLSearchParams(fields) }));
}

async function answer(reply) {
  const body = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Refusal(reply.status, body);
  return body;
}
