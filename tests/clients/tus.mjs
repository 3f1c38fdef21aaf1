// Uploads a file with the unmodified tus-js-client, which is installed with the end-to-end tests (tests/e2e).
//
// node tus.mjs <endpoint> <token> <conversation> <file> <urls.json> [abort-after-bytes]
//
// urls.json is where the client keeps the addresses of unfinished uploads, as a browser would in local storage. With
// abort-after-bytes the upload is aborted once so many bytes are acknowledged. Prints one line of JSON.
import { createReadStream, statSync } from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";

const { Upload, FileUrlStorage } = createRequire(new URL("../e2e/package.json", import.meta.url))("tus-js-client");
const [endpoint, token, conversation, path, urls, abortAfter] = process.argv.slice(2);
const sent = [];

const upload = new Upload(createReadStream(path), {
  endpoint,
  headers: { Authorization: `Bearer ${token}` },
  metadata: { filename: "Befund für Zoë.pdf", filetype: "application/pdf", conversation },
  uploadSize: statSync(path).size,
  chunkSize: 256 * 1024,
  retryDelays: [100, 200, 400],
  urlStorage: new FileUrlStorage(urls),
  storeFingerprintForResuming: true,
  removeFingerprintOnSuccess: true,
  fingerprint: async () => "one-file",
  onAfterResponse: (request, response) => {
    sent.push(`${request.getMethod()} ${response.getStatus()} ${response.getHeader("Upload-Offset") ?? ""}`.trim());
  },
  onChunkComplete: (_size, accepted) => {
    if (abortAfter && accepted >= Number(abortAfter)) {
      upload.abort(false).then(() => done({ aborted: accepted }));
    }
  },
  onError: (error) => done({ error: String(error) }),
  onSuccess: () => done({ url: upload.url }),
});

function done(result) {
  process.stdout.write(`${JSON.stringify({ ...result, sent })}\n`, () => process.exit(result.error ? 1 : 0));
}

const previous = await upload.findPreviousUploads();
if (previous.length > 0) upload.resumeFromPreviousUpload(previous[0]);
upload.start();
