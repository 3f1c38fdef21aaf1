// The signed-in app: routes, and the two providers they need. Each screen is its own chunk.
import { QueryClientProvider } from '@tanstack/react-query';
import { createRootRoute, createRoute, createRouter, lazyRouteComponent, Outlet, redirect, RouterProvider } from '@tanstack/react-router';
import { homeOf } from '../core/session/hub';
import { hint, wanted } from '../core/session/session';
import { hub, queries } from './hub';
import { NotFound } from './shell/NotFound';
import { Shell } from './shell/Shell';
import { AddressConfirm, AddressUndo } from './signin/AddressLink';
import { Enter } from './signin/Enter';
import { SignIn } from './signin/SignIn';
import { SsoReturn } from './signin/SsoReturn';
import { readSearch } from './audit/search';
import './app.css';

const root = createRootRoute({ component: Outlet, notFoundComponent: NotFound });

const signIn = createRoute({
  getParentRoute: () => root, path: '/', component: SignIn,
  beforeLoad: () => {
    const user = hub.user.get();
    if (user) throw redirect({ to: homeOf(user) });
  },
});
const enter = createRoute({ getParentRoute: () => root, path: '/enter', component: Enter });
const addressConfirm = createRoute({ getParentRoute: () => root, path: '/address/confirm', component: AddressConfirm });
const addressUndo = createRoute({ getParentRoute: () => root, path: '/address/undo', component: AddressUndo });
const ssoReturn = createRoute({ getParentRoute: () => root, path: '/sso', component: SsoReturn });
/** Before anything behind the door: signed in, or first to the door and back here. */
function signedIn() {
  if (!hub.user.get()) {
    hint.take(location.hash);
    wanted.write(location.pathname + location.search);
    throw redirect({ to: '/' });
  }
}
const authorize = createRoute({
  getParentRoute: () => root, path: '/app/authorize', beforeLoad: signedIn,
  validateSearch: (search: Record<string, unknown>) => ({ request: String(search['request'] ?? '') }),
  component: lazyRouteComponent(() => import('./authorize/Authorize'), 'Authorize'),
});
/** `prompt=none`: whoever is signed in, or nobody. */
const silent = createRoute({
  getParentRoute: () => root, path: '/app/authorize/silent',
  validateSearch: (search: Record<string, unknown>) => ({ request: String(search['request'] ?? '') }),
  component: lazyRouteComponent(() => import('./authorize/Silent'), 'Silent'),
});
const app = createRoute({
  getParentRoute: () => root, path: '/app', component: Shell,
  beforeLoad: () => {
    signedIn();
    void hub.connect();
  },
});
const index = createRoute({
  getParentRoute: () => app, path: '/',
  beforeLoad: () => {
    const user = hub.user.get();
    throw redirect({ to: user ? homeOf(user) : '/' });
  },
});
const today = createRoute({ getParentRoute: () => app, path: '/today', component: lazyRouteComponent(() => import('./today/Today'), 'Today') });
const queue = createRoute({ getParentRoute: () => app, path: '/queue', component: lazyRouteComponent(() => import('./queue/Queue'), 'Queue') });
const board = createRoute({ getParentRoute: () => app, path: '/board', component: lazyRouteComponent(() => import('./board/Board'), 'Board') });
const audit = createRoute({ getParentRoute: () => app, path: '/audit', validateSearch: readSearch, component: lazyRouteComponent(() => import('./audit/Audit'), 'Audit') });
const access = createRoute({ getParentRoute: () => app, path: '/access', component: lazyRouteComponent(() => import('./access/Access'), 'Access') });
const clients = createRoute({ getParentRoute: () => app, path: '/clients', component: lazyRouteComponent(() => import('./clients/Clients'), 'Clients') });
const security = createRoute({ getParentRoute: () => app, path: '/account/security', component: lazyRouteComponent(() => import('./account/Security'), 'Security') });
const people = createRoute({ getParentRoute: () => app, path: '/admin/people', component: lazyRouteComponent(() => import('./admin/People'), 'People') });
const roles = createRoute({ getParentRoute: () => app, path: '/admin/roles', component: lazyRouteComponent(() => import('./admin/Roles'), 'Roles') });
const clinics = createRoute({ getParentRoute: () => app, path: '/admin/clinics', component: lazyRouteComponent(() => import('./admin/Clinics'), 'Clinics') });
const settings = createRoute({ getParentRoute: () => app, path: '/admin/settings', component: lazyRouteComponent(() => import('./admin/Settings'), 'Settings') });
const data = createRoute({ getParentRoute: () => app, path: '/admin/data', component: lazyRouteComponent(() => import('./admin/Data'), 'Data') });
const profile = createRoute({ getParentRoute: () => app, path: '/account/profile', component: lazyRouteComponent(() => import('./account/Profile'), 'Profile') });
const preferences = createRoute({ getParentRoute: () => app, path: '/account/preferences', component: lazyRouteComponent(() => import('./account/Preferences'), 'Preferences') });
const privacy = createRoute({ getParentRoute: () => app, path: '/account/privacy', component: lazyRouteComponent(() => import('./account/Privacy'), 'Privacy') });
const welcome = createRoute({ getParentRoute: () => app, path: '/account/welcome', component: lazyRouteComponent(() => import('./account/Welcome'), 'Welcome') });
const visit = createRoute({ getParentRoute: () => app, path: '/visit/$id', component: lazyRouteComponent(() => import('./consult/ConsultPage'), 'ConsultPage') });

const screens = [index, today, queue, board, audit, access, clients, people, roles, clinics, settings, data, security, profile, preferences, privacy, welcome, visit];
const router = createRouter({ routeTree: root.addChildren([signIn, enter, addressConfirm, addressUndo, ssoReturn, authorize, silent, app.addChildren(screens)]), defaultPreload: 'intent' });

declare module '@tanstack/react-router' {
  interface Register { router: typeof router }
}

export function App() {
  return (
    <QueryClientProvider client={queries}>
      <RouterProvider router={router} />
    </QueryClientProvider>
  );
}
