// The signed-in app: routes, and the two providers they need. Each screen is its own chunk.
import { QueryClientProvider } from '@tanstack/react-query';
import { createRootRoute, createRoute, createRouter, lazyRouteComponent, Outlet, redirect, RouterProvider } from '@tanstack/react-router';
import { homeOf } from '../core/session/hub';
import { wanted } from '../core/session/session';
import { hub, queries } from './hub';
import { NotFound } from './shell/NotFound';
import { Shell } from './shell/Shell';
import { Enter } from './signin/Enter';
import { SignIn } from './signin/SignIn';
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
const app = createRoute({
  getParentRoute: () => root, path: '/app', component: Shell,
  beforeLoad: () => {
    if (!hub.user.get()) {
      wanted.write(location.pathname);
      throw redirect({ to: '/' });
    }
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
const visit = createRoute({ getParentRoute: () => app, path: '/visit/$id', component: lazyRouteComponent(() => import('./consult/ConsultPage'), 'ConsultPage') });

const router = createRouter({ routeTree: root.addChildren([signIn, enter, app.addChildren([index, today, queue, board, audit, access, visit])]), defaultPreload: 'intent' });

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
