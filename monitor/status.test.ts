import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TransferEvent } from '../tftp/transfer-event.ts';
import { TransferStats } from '../tftp/stats.ts';
import { EMPTY_BUDGET } from './budget.ts';
import type { Event } from './event.ts';
import { next } from './next.ts';
import { type Clock, type MonitorState, TIMING, startState } from './state.ts';
import { formatStatus, parseEvents, statusOf } from './status.ts';

const TESTDATA = join(import.meta.dirname, 'testdata');
const CLOCK: Clock = { uptimeMs: 61_500, wallMs: Date.UTC(2026, 0, 1, 12, 1, 1, 500) };

const READ: TransferEvent = {
  peer: '192.0.2.7',
  port: 2070,
  direction: 'read',
  name: 'status.json',
  mode: 'octet',
  asked: {},
  options: [],
  granted: {},
  bytes: 700,
  blocks: 2,
  repeats: 1,
  durationMs: 3,
  result: 'done',
  begun: true,
};

const hostWith = (...events: readonly Event[]): MonitorState => {
  let state = startState(
    {
      buildId: 'aaaa',
      watchesImage: true,
      isNamed: true,
      timing: TIMING,
      toolchains: [
        { name: 'default', wantsAgent: true },
        { name: 'broken', wantsAgent: true },
      ],
      stateStorage: 'ram',
      events: [],
    },
    { ...CLOCK, uptimeMs: 20_123.4 },
  );
  for (const event of events) state = next(state, event, CLOCK);
  return state;
};

test('status.json says what there is to say of toolchains, agents, options, storage, TFTP', () => {
  const state = hostWith(
    { kind: 'toolchain-list', toolchain: 'default', id: 't1', version: '1.0' },
    { kind: 'toolchain-ready', toolchain: 'default', hasAgent: true },
    { kind: 'agent-started', toolchain: 'default' },
    {
      kind: 'agents-seen',
      agents: {
        default: {
          unit: 'active',
          detail: 'running',
          report: { state: 'busy', tasks: [{ build: 'default-1' }], undelivered: 0, lastError: 'no answer' },
        },
      },
    },
    { kind: 'toolchain-list', toolchain: 'broken', id: 'x1' },
    { kind: 'toolchain-failed', toolchain: 'broken', trouble: { error: 'It broke', hint: 'mend it' } },
    { kind: 'ready' },
    { kind: 'looked', found: { image: { kind: 'unreachable', error: 'no route' } }, random: 0.5 },
    { kind: 'setback', step: { kind: 'look' }, trouble: { error: 'odd' } },
  );
  const problem = { name: 'buildos.foo', value: 'x', message: 'unknown', hint: 'did you mean buildos.ram?' };
  const stats = new TransferStats();
  stats.begin();
  stats.begin();
  stats.add(READ);
  stats.add({ ...READ, begun: false, result: 'failed', bytes: 0, repeats: 0, errorCode: 1 });
  const text = formatStatus(statusOf(state, [problem], CLOCK, stats.snapshot()));
  const file = join(TESTDATA, 'status.json');
  if (process.env['UPDATE_TESTDATA'] === '1') writeFileSync(file, text);
  assert.equal(text, readFileSync(file, 'utf8'));
  assert.deepEqual(
    parseEvents(text),
    state.events.map(({ name, uptimeMs }) => ({ name, uptimeMs: Math.round(uptimeMs) })),
  );
});

test('parseEvents() takes nothing from a file that is not a whole status.json', () => {
  const text = formatStatus(statusOf(hostWith(), [], CLOCK, new TransferStats().snapshot()));
  for (let length = 0; length < text.trimEnd().length; length += 1)
    assert.deepEqual(parseEvents(text.slice(0, length)), []);
  for (const other of ['[]', 'null', '{"events":1}', '{"events":[{"name":1}]}'])
    assert.deepEqual(parseEvents(other), []);
});

test('a monitor that is killed after it asked for a reboot remembers that it did', () => {
  const events = [{ name: 'reboot', uptimeMs: 1000 }];
  const start = { buildId: 'a', watchesImage: true, isNamed: true, timing: TIMING, toolchains: [], events };
  assert.equal(startState({ ...start, stateStorage: 'ram' }, CLOCK).rebootsThisBoot, 1);
});

test('a host that has reached its target takes it off the budget', () => {
  const budget = { reboots: [{ atMs: 1, targets: ['image a', 'toolchain default t1'] }] };
  const toolchains = [{ name: 'default', wantsAgent: false }];
  const start = { buildId: 'a', watchesImage: true, isNamed: true, timing: TIMING, toolchains, events: [] };
  let state = startState({ ...start, stateStorage: 'disk', budget }, CLOCK);
  assert.ok(state.isBudgetDirty);
  assert.deepEqual(state.budget?.reboots, [{ atMs: 1, targets: ['toolchain default t1'] }]);
  state = next(state, { kind: 'budget-saved' }, CLOCK);
  state = next(state, { kind: 'toolchain-list', toolchain: 'default', id: 't1', version: '1' }, CLOCK);
  state = next(state, { kind: 'toolchain-ready', toolchain: 'default', hasAgent: false }, CLOCK);
  assert.ok(state.isBudgetDirty);
  assert.deepEqual(state.budget?.reboots, [{ atMs: 1, targets: [] }]);
  const untouched = startState({ ...start, stateStorage: 'disk', budget: EMPTY_BUDGET }, CLOCK);
  assert.ok(!untouched.isBudgetDirty);
});

test('an agent that does not come up is given up after its time, and tried again later', () => {
  let state = hostWith(
    { kind: 'toolchain-ready', toolchain: 'default', hasAgent: true },
    { kind: 'agent-started', toolchain: 'default' },
  );
  const seen: Event = { kind: 'agents-seen', agents: { default: { unit: 'activating', detail: 'auto-restart' } } };
  state = next(state, seen, CLOCK);
  assert.equal(state.toolchains['default']?.agent.state, 'starting');
  const later = { ...CLOCK, uptimeMs: CLOCK.uptimeMs + TIMING.agentStartMs + 1 };
  state = next(state, seen, later);
  assert.equal(state.toolchains['default']?.agent.state, 'failed');
  assert.match(state.toolchains['default'].agent.trouble?.error ?? '', /still activating after 90000 ms: auto-restart/);
  assert.equal(state.toolchains['default'].agent.nextTryAtMs, later.uptimeMs + TIMING.retryFirstMs);
});
