// The server's routes, asked with the key that the user gave. What is refused becomes an error with the server's words.

let key = ""; // kept here alone: it is gone when the page is left

export class RequestError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `the server answered ${status}`);
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
