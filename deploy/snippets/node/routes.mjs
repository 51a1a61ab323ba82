// Routes for Express: a ticket for the logged-in user, a publish, and a logout that ends all streams.
//
// The app needs `express-session`. The login stores the user's id in `request.session.user`. Express 5
// passes the error of a rejected promise on; with Express 4, wrap the functions.

import { publish, revoke, ticket } from './downlink.mjs';

export function addLiveRoutes(app) {
  // The page fetches this URL, and opens the URL in the answer with EventSource.
  app.get('/live', loggedIn, async (request, response) => {
    const user = String(request.session.user);
    // Build topics from ids, never from names that users choose: a user named "*" would get a
    // ticket for the topics of all users.
    const url = await ticket([`users/${user}/*`], user);
    response.set('Cache-Control', 'no-store').json({ url });
  });

  app.post('/orders/:order/pay', loggedIn, async (request, response) => {
    const order = Number(request.params.order);
    await publish(`users/${request.session.user}/orders`, 'paid', { order });
    response.json({ order });
  });

  app.post('/logout', loggedIn, async (request, response) => {
    const user = String(request.session.user);
    await new Promise((resolve, reject) => {
      request.session.destroy((error) => (error ? reject(error) : resolve()));
    });
    await revoke(user);
    response.json({});
  });
}

function loggedIn(request, response, next) {
  if (request.session.user === undefined) return response.status(401).json({ detail: 'Log in first.' });
  next();
}
