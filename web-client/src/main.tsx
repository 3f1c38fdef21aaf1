// The door: a patient's visit and the signed-in app are separate chunks, so that a phone loads only its own.
import { StrictMode, type ReactNode } from 'react';
import { createRoot } from 'react-dom/client';
import { loadLanguage } from './core/i18n/i18n';
import { applyLook } from './theme/preferences';
import { applyTheme } from './theme/theme';
import './theme/tokens.css';
import './theme/base.css';

async function screen(): Promise<ReactNode> {
  if (location.pathname === '/visit' || location.pathname.startsWith('/visit/')) {
    const [{ VisitApp }] = await Promise.all([import('./visit/VisitApp'), loadLanguage(['common', 'visit'])]);
    return <VisitApp />;
  }
  const [{ App }] = await Promise.all([import('./app/App'), loadLanguage(['common', 'app', 'admin'])]);
  return <App />;
}

applyTheme();
applyLook();
const root = document.getElementById('root');
if (root) {
  const content = await screen();
  createRoot(root).render(<StrictMode>{content}</StrictMode>);
}
