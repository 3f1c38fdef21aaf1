// Build and development server. The server's doors are proxied so that the page and its API share one origin.
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

const backend = process.env['MEDTECH_BACKEND'] ?? 'http://127.0.0.1:8080';
const doors = ['/api', '/fhir', '/files', '/connection', '/rtc', '/dev'];

export default defineConfig({
  plugins: [react()],
  server: {
    host: '127.0.0.1',
    proxy: Object.fromEntries(doors.map((path) => [path, { target: backend, ws: true }])),
  },
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
  },
  test: { environment: 'node', include: ['src/**/*.test.{ts,tsx}'] },
});
