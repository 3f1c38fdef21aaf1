// An outside OpenID provider: the unmodified `oidc-provider` on this machine, where anybody may say who they are.
import { createServer } from "node:http";
import Provider from "oidc-provider";

export async function outsideProvider(redirectUri) {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://localhost:${server.address().port}`;
  // What the provider sends when somebody signs out there goes on as it came, to where the test says: our address for it is
  // known only after the provider is.
  const relayed = [];
  const outside = { issuer, relayed, logoutUri: null };
  const relay = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const { status } = await fetch(outside.logoutUri, { method: "POST", headers: { "content-type": request.headers["content-type"] }, body });
    relayed.push({ status, token: new URLSearchParams(body).get("logout_token") });
    response.writeHead(status).end();
  });
  await new Promise((resolve) => relay.listen(0, "127.0.0.1", resolve));
  const provider = new Provider(issuer, {
    clients: [{
      client_id: "medtech", client_secret: "a secret of some length", redirect_uris: [redirectUri], grant_types: ["authorization_code"], response_types: ["code"],
      backchannel_logout_uri: `http://localhost:${relay.address().port}/`, backchannel_logout_session_required: true,
    }],
    features: { backchannelLogout: { enabled: true } },
    pkce: { methods: ["S256"], required: () => true },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
    // Who signs in as `x` is x@the clinic's domain.
    findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub, email: `${sub}@hospital.example`, email_verified: true, name: `Nurse ${sub}` }) }),
  });
  server.on("request", provider.callback());
  const end = (one) => new Promise((resolve) => (one.closeAllConnections(), one.close(resolve)));
  outside.close = () => Promise.all([end(server), end(relay)]);
  return outside;
}
