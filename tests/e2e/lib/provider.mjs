// An outside OpenID provider: the unmodified `oidc-provider` on this machine, where anybody may say who they are.
import { createServer } from "node:http";
import Provider from "oidc-provider";

export async function outsideProvider(redirectUri) {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://localhost:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{ client_id: "medtech", client_secret: "a secret of some length", redirect_uris: [redirectUri], grant_types: ["authorization_code"], response_types: ["code"] }],
    pkce: { methods: ["S256"], required: () => true },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
    // Who signs in as `x` is x@the clinic's domain.
    findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub, email: `${sub}@hospital.example`, email_verified: true, name: `Nurse ${sub}` }) }),
  });
  server.on("request", provider.callback());
  return { issuer, close: () => new Promise((resolve) => (server.closeAllConnections(), server.close(resolve))) };
}
