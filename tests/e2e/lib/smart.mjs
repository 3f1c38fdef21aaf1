// An application of somebody else: a web server of its own with the pages of a SMART app, made of the unmodified fhirclient.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";

const library = createRequire(import.meta.url).resolve("fhirclient/build/fhir-client.js");

/** Pages: `/launch` (EHR launch), `/standalone` (launches itself), `/app` (comes back, reads the patient), `/cb` (nothing). */
export async function smartApp(iss) {
  const app = { clientId: "", scope: "", visits: [] };
  const page = (script) => `<!doctype html><html lang="en"><title>App</title><script src="/fhir-client.js"></script><body><main id="out">…</main><script>${script}</script>`;
  const authorize = (more) => `FHIR.oauth2.authorize(Object.assign({clientId:${JSON.stringify(app.clientId)},scope:${JSON.stringify(app.scope)},redirectUri:"app"},${more})).catch(e=>{document.title="failed";out.textContent=String(e)})`;
  const show = `FHIR.oauth2.ready().then(async c=>{window.client=c;const p=await c.patient.read();
    window.result={patient:p,id:c.patient.id,encounter:c.encounter.id,fhirUser:c.user.fhirUser,token:c.state.tokenResponse};out.textContent="Patient "+p.id;document.title="ready"})
    .catch(e=>{document.title="failed";out.textContent=String(e)})`;
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://x");
    app.visits.push(request.url);
    if (pathname === "/fhir-client.js") return response.setHeader("content-type", "text/javascript").end(await readFile(library));
    response.setHeader("content-type", "text/html; charset=utf-8");
    if (pathname === "/launch") return response.end(page(authorize("{}")));
    if (pathname === "/standalone") return response.end(page(authorize(`{iss:${JSON.stringify(iss)}}`)));
    if (pathname === "/app") return response.end(page(show));
    if (pathname === "/cb" || pathname === "/bye") return response.end(page("document.title='back'"));
    response.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  app.url = `http://localhost:${server.address().port}`;
  app.close = () => new Promise((resolve) => (server.closeAllConnections(), server.close(resolve)));
  return app;
}
