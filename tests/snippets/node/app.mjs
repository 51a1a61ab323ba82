// An Express app around the routes in deploy/snippets/node.

import express from 'express';
import session from 'express-session';

import { addLiveRoutes } from '../../../deploy/snippets/node/routes.mjs';

const USERS = { ada: 1, bob: 2 };

const app = express();
app.use(session({ secret: 'a secret of this test', resave: false, saveUninitialized: false }));
app.get('/', (_, response) => response.send(''));
app.post('/login', express.urlencoded({ extended: false }), (request, response) => {
  const { name, password } = request.body;
  if (!(name in USERS) || password !== `password of ${name}`) return response.sendStatus(401);
  request.session.user = USERS[name];
  response.json({});
});
addLiveRoutes(app);
app.listen(Number(process.env.PORT), '127.0.0.1');
