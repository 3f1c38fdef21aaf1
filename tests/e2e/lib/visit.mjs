// The patient's way into a visit by the API alone, for tests that are about something else.
import { randomUUID } from "node:crypto";

/** Opens the printed visit link and goes as far as the waiting room; answers { token, visit, me, device }. */
export async function arrive(server, device = { id: randomUUID(), name: "Test browser" }) {
  const link = server.addresses.patient.split("#")[1];
  const opened = await server.api(null, "POST", "/api/visits/open", { link, device });
  if (opened.status !== 200) throw new Error(`open: ${opened.status} ${JSON.stringify(opened.body)}`);
  const { access_token: token, visit, me } = opened.body;
  const post = (step, body) => server.api(token, "POST", `/api/visits/${visit.id}/${step}`, body);
  await post("device-check", { camera: "ok", microphone: "ok", speaker: "ok" });
  const waiting = await post("consent", { accepted: true, text_version: "1", language: "en" });
  if (waiting.status !== 200) throw new Error(`consent: ${waiting.status} ${JSON.stringify(waiting.body)}`);
  return { token, visit: waiting.body, me, device, link };
}
