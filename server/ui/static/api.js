// Client of the server's API. An error response becomes a RequestError with the server's message.

let key = ""; // kept in memory only, so it is gone when the page is closed

export class RequestError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `The server answered with status ${status}.`);
    this.status = status;
    this.errors = problem.errors ?? [];
  }
}

export function useKey(newKey) {
  key = newKey;
}

export async function callApi(route, body, signal) {
  const headers = { ...(body && { "Content-Type": "application/json" }), ...(key && { Authorization: `Bearer ${key}` }) };
  const url = document.body.dataset.root + route;
  const answer = await fetch(url, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  if (!answer.ok) {
    throw new RequestError(answer.status, await answer.json().catch(() => ({})));
  }
  return answer.json();
}
