// A page gets its events with tickets, over downlink.js. See lib/survival.mjs.

import { SURVIVAL_TIMEOUT_MS, survive } from '../lib/survival.mjs';

export const name = 'helper-tickets';
export const timeoutMs = SURVIVAL_TIMEOUT_MS;
export const run = (tools) => survive(tools, { session: false });
