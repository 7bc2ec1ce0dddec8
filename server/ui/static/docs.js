// Swagger UI on this server's own document. No validator, no top bar: both would ask other hosts.
window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: document.querySelector("#api").dataset.document,
    dom_id: "#api",
    deepLinking: true,
    validatorUrl: null,
    defaultModelsExpandDepth: 0,
  });
});
