// Swagger UI for this server's OpenAPI document. The validator and the top bar are off, since they contact other hosts.
window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: document.querySelector("#api").dataset.document,
    dom_id: "#api",
    deepLinking: true,
    validatorUrl: null,
    defaultModelsExpandDepth: 0,
  });
});
