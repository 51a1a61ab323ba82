// A page gets its events with the session of its app, over downlink.js: the server asks the app with
// `--authorize-url`. See lib/survival.mjs.

import { SURVIVAL_TIMEOUT_MS, survive } from '../lib/survival.mjs';

export const name = 'helper-session';
export const timeoutMs = SURVIVAL_TIMEOUT_MS;
export const run = (tools) => survive(tools, { session: true });
