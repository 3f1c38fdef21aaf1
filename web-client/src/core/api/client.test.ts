import { describe, expect, it } from 'vitest';
import { ApiClient } from './client';
import { ApiError } from './problem';

const problem = (status: number, code: string) =>
  new Response(JSON.stringify({ type: 'about:blank', title: 'x', status, code, detail: 'd', correlation: 'c-1' }), {
    status, headers: { 'content-type': 'application/problem+json' },
  });

function client(answers: Array<Response | Error>, token: string | null = 'mt_1') {
  const seen: Request[] = [];
  const waits: number[] = [];
  let refused = 0;
  const api = new ApiClient({
    token: () => token,
    onUnauthorized: () => { refused += 1; },
    sleep: async (ms) => { waits.push(ms); },
    fetch: async (input, init) => {
      seen.push(new Request(new URL(String(input), 'http://clinic.test'), init));
      const next = answers.shift();
      if (next === undefined || next instanceof Error) throw next ?? new TypeError('no answer left');
      return next;
    },
  });
  return { api, seen, waits, refused: () => refused };
}

describe('ApiClient', () => {
  it('reads a problem document into its stable code and its reference', async () => {
    const { api } = client([problem(409, 'visit.link_in_use')]);
    const error = await api.post('/api/visits/open').catch((e: unknown) => e);
    expect(error).toMatchObject({ status: 409, code: 'visit.link_in_use', correlation: 'c-1' });
    expect((error as ApiError).transient).toBe(false);
  });

  it('repeats a command after a lost connection and a 503 under one Idempotency-Key', async () => {
    const { api, seen, waits } = client([new TypeError('gone'), problem(503, 'busy'), Response.json({ ok: true })]);
    expect(await api.post('/api/visits/1/admit')).toEqual({ ok: true });
    const keys = seen.map((r) => r.headers.get('idempotency-key'));
    expect(keys[0]).toMatch(/^[0-9a-f-]{36}$/);
    expect(new Set(keys).size).toBe(1);
    expect(waits).toHaveLength(2);
  });

  it('gives up after three tries and says that no answer came', async () => {
    const { api, seen } = client([new TypeError(), new TypeError(), new TypeError()]);
    await expect(api.post('/x')).rejects.toMatchObject({ status: 0, code: 'network' });
    expect(seen).toHaveLength(3);
  });

  it('never repeats a refused command, and never a read', async () => {
    const refused = client([problem(422, 'bad')]);
    await expect(refused.api.post('/x')).rejects.toMatchObject({ code: 'bad' });
    expect(refused.seen).toHaveLength(1);
    const read = client([problem(503, 'busy')]);
    await expect(read.api.get('/x')).rejects.toMatchObject({ status: 503 });
    expect(read.seen).toHaveLength(1);
    expect(read.seen[0]?.headers.has('idempotency-key')).toBe(false);
  });

  it('tells of an ended session only where a token was sent', async () => {
    const held = client([problem(401, 'auth.expired')]);
    await held.api.get('/x').catch(() => undefined);
    expect(held.refused()).toBe(1);
    const none = client([problem(401, 'auth.bad_credentials')], null);
    await none.api.post('/x').catch(() => undefined);
    expect(none.refused()).toBe(0);
  });

  it('asks for a fresh proof once, and sends the same request once more', async () => {
    const asked: number[] = [];
    const seen: Request[] = [];
    const answers = [problem(403, 'auth.step_up'), Response.json({ ok: true }), problem(403, 'auth.step_up'), problem(403, 'auth.step_up'), problem(403, 'policy.denied')];
    let proves = true;
    const api = new ApiClient({
      token: () => 'mt_1', onStepUp: async () => { asked.push(1); return proves; },
      fetch: async (input, init) => { seen.push(new Request(new URL(String(input), 'http://clinic.test'), init)); return answers.shift() ?? problem(500, 'none'); },
    });
    expect(await api.post('/x', { a: 1 })).toEqual({ ok: true });
    expect(await seen[1]?.json()).toEqual({ a: 1 });
    expect(seen[0]?.headers.get('idempotency-key')).toBe(seen[1]?.headers.get('idempotency-key'));
    await expect(api.delete('/x')).rejects.toMatchObject({ code: 'auth.step_up' });
    expect([asked.length, seen.length]).toEqual([2, 4]);
    await expect(api.get('/x')).rejects.toMatchObject({ code: 'policy.denied' });
    proves = false;
    answers.push(problem(403, 'auth.step_up'));
    await expect(api.get('/x')).rejects.toMatchObject({ code: 'auth.step_up' });
    expect([asked.length, seen.length]).toEqual([3, 6]);
  });

  it('survives an error page that is no problem document', async () => {
    const { api } = client([new Response('<h1>Bad Gateway</h1>', { status: 502 })]);
    await expect(api.get('/x')).rejects.toMatchObject({ status: 502, code: 'http.502' });
  });

  it('asks once more when the token has changed on the way, and never with the same one', async () => {
    let token = 'mt_old';
    const seen: Array<string | null> = [];
    let refused = 0;
    const api = new ApiClient({
      token: () => token,
      onUnauthorized: () => { refused += 1; },
      fetch: async (input, init) => {
        const sent = new Request(new URL(String(input), 'http://clinic.test'), init).headers.get('authorization');
        seen.push(sent);
        if (sent !== 'Bearer mt_old') return Response.json({ ok: true });
        token = 'mt_new';
        return problem(401, 'auth.token_unknown');
      },
    });
    expect(await api.get('/api/x')).toEqual({ ok: true });
    expect([seen, refused]).toEqual([['Bearer mt_old', 'Bearer mt_new'], 0]);
    const { api: other, seen: asked, refused: told } = client([problem(401, 'auth.token_unknown')]);
    await other.get('/api/x').catch(() => undefined);
    expect([asked.length, told()]).toEqual([1, 1]);
  });
  it('says which browser it is where it is told to, and nowhere else', async () => {
    const headers: Array<string | null> = [];
    const make = (browser?: () => string) => new ApiClient({
      ...(browser ? { browser } : {}),
      fetch: async (input, init) => { headers.push(new Request(new URL(String(input), 'http://clinic.test'), init).headers.get('medtech-browser')); return Response.json({}); },
    });
    await make(() => 'secret').get('/a');
    await make().get('/a');
    expect(headers).toEqual(['secret', null]);
  });
});
