/**
 * Stories of a host: events in, the planned steps and the status line out, compared with testdata/<story>.txt.
 * UPDATE_TESTDATA=1 rewrites them; review the diff.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { EMPTY_BUDGET, recordReboot } from './budget.ts';
import { plan } from './plan.ts';
import type { Event } from './event.ts';
import { next } from './next.ts';
import {
  type Clock,
  type Found,
  type MonitorState,
  type Start,
  TIMING,
  startState,
  targetsKey,
  targetsOf,
} from './state.ts';
import { formatStatusLine } from './status.ts';
import { type Step, describe, isNoteworthy, keyOf } from './step.ts';

const TESTDATA = join(import.meta.dirname, 'testdata');
const EPOCH = Date.UTC(2026, 0, 1, 12);

const id = (value: string): Found => ({ kind: 'id', id: value });
const DOWN: Found = { kind: 'unreachable', error: 'Cannot fetch http://boot/: connect ECONNREFUSED' };

/** A host that is told what happens; it writes down what it plans. */
class Story {
  readonly lines: string[] = [];
  state: MonitorState;
  #seconds = 20;

  constructor(start: Partial<Start> = {}) {
    this.state = startState(
      {
        buildId: 'aaaa',
        watchesImage: true,
        isNamed: true,
        timing: { ...TIMING, lookSpread: 0 },
        toolchains: [{ name: 'default', wantsAgent: true }],
        stateStorage: 'disk',
        budget: EMPTY_BUDGET,
        events: [],
        ...start,
      },
      this.clock,
    );
  }

  get clock(): Clock {
    return { uptimeMs: this.#seconds * 1000, wallMs: EPOCH + this.#seconds * 1000 };
  }

  /** Tells something, then plans. */
  tell(...events: readonly Event[]): this {
    for (const event of events) this.#take(event);
    return this.#plan();
  }

  /** Lets time pass, then plans. */
  wait(seconds: number): this {
    this.#seconds += seconds;
    this.lines.push(`-- ${seconds} s later`);
    return this.#plan();
  }

  /** A look's outcome. */
  looked(image: Found, toolchain: Found = id('t1')): this {
    return this.tell({ kind: 'looked', found: { image, 'toolchain default': toolchain }, random: 0.5 });
  }

  verified(isGood: boolean, duringDrain = false): this {
    const why = isGood ? {} : { why: 'the SHA-256 of buildos-initrd as served is 1111, expected 2222' };
    return this.tell({ kind: 'verified', key: targetsKey(targetsOf(this.state)), isGood, duringDrain, ...why });
  }

  agent(state: string, tasks: number, undelivered = 0): this {
    const report = { state, tasks: Array.from({ length: tasks }, (_, build) => ({ build })), undelivered };
    return this.tell({ kind: 'agents-seen', agents: { default: { unit: 'active', detail: 'running', report } } });
  }

  /** From the start to an agent that polls. */
  boot(): this {
    this.wait(0);
    this.tell(
      { kind: 'toolchain-stage', toolchain: 'default', stage: 'fetching' },
      { kind: 'toolchain-list', toolchain: 'default', id: 't1', version: '1.0' },
      { kind: 'toolchain-ready', toolchain: 'default', hasAgent: true },
    );
    this.tell({ kind: 'agent-started', toolchain: 'default' });
    this.tell({ kind: 'ready' });
    return this.agent('polling', 0);
  }

  end(name: string): void {
    const text = `${this.lines.join('\n')}\n`;
    const file = join(TESTDATA, `${name}.txt`);
    if (process.env['UPDATE_TESTDATA'] === '1') writeFileSync(file, text);
    assert.equal(text, readFileSync(file, 'utf8'));
  }

  #plan(): this {
    for (const step of plan(this.state, this.clock)) this.#begin(step);
    const status = formatStatusLine(this.state, this.clock);
    if (this.lines.findLast((line) => line.startsWith('  =')) !== `  = ${status}`) this.lines.push(`  = ${status}`);
    return this;
  }

  #begin(step: Step): void {
    if (step.kind !== 'see-agents') this.lines.push(`  > ${describe(step)}`);
    this.state = next(this.state, { kind: 'began', step }, this.clock);
  }

  /** An outcome ends its step. */
  #take(event: Event): void {
    const mark = event.kind === 'looked' ? JSON.stringify(event.found) : '';
    if (event.kind !== 'agents-seen') this.lines.push(`${event.kind} ${mark}`.trimEnd());
    this.state = next(this.state, event, this.clock);
    const ends = ENDS[event.kind];
    const whose = 'toolchain' in event ? ` ${event.toolchain}` : '';
    for (const key of this.state.busy.filter((one) => one === `${ends}${whose}`)) {
      const step = STEPS.find((one) => keyOf(one) === key);
      assert.ok(step);
      this.state = next(this.state, { kind: 'ended', step }, this.clock);
    }
  }
}

/** Which step an event is the outcome of. */
const ENDS: Partial<Record<Event['kind'], Step['kind']>> = {
  'toolchain-ready': 'try-toolchain',
  'toolchain-failed': 'try-toolchain',
  'toolchain-disabled': 'try-toolchain',
  'agent-started': 'start-agent',
  'agent-failed': 'start-agent',
  'agents-seen': 'see-agents',
  named: 'name-host',
  ready: 'say-ready',
  looked: 'look',
  verified: 'verify',
  'drain-on': 'drain',
  'drain-off': 'undrain',
  'budget-saved': 'save-budget',
  'budget-lost': 'reboot',
  'reboot-asked': 'reboot',
};
const STEPS: readonly Step[] = [
  ...['default', 'broken'].flatMap((toolchain): Step[] => [
    { kind: 'try-toolchain', toolchain },
    { kind: 'start-agent', toolchain },
  ]),
  { kind: 'see-agents', toolchains: [], units: [] },
  { kind: 'name-host', orElseMac: false },
  { kind: 'say-ready' },
  { kind: 'look' },
  { kind: 'verify', targets: [], duringDrain: false },
  { kind: 'drain', reason: '' },
  { kind: 'undrain', why: '' },
  { kind: 'save-budget', budget: EMPTY_BUDGET },
  { kind: 'reboot', reason: '', agents: [] },
];

test('a new image: verified, drained, verified again, rebooted into, once', () => {
  const story = new Story().boot();
  story.looked(id('aaaa')).wait(60).looked(id('bbbb')).verified(true);
  story.tell({ kind: 'drain-on', reason: 'image aaaa → bbbb' });
  story.agent('busy', 1).wait(2).agent('draining', 1).wait(60).looked(id('bbbb'));
  story.agent('draining', 0, 1).wait(2).agent('draining', 0).verified(true, true);
  story.tell({ kind: 'reboot-asked', budget: recordReboot(EMPTY_BUDGET, ['image bbbb'], story.clock.wallMs) });
  story.wait(10);
  story.end('new-image');
});

test('a half-published image is held, looked at less and less often, and followed when it is whole', () => {
  const story = new Story().boot();
  story.looked(id('aaaa')).wait(60).looked(id('bbbb')).verified(false);
  story.wait(60).looked(id('bbbb')).verified(false);
  story.wait(60).looked(id('bbbb')).wait(60).looked(id('bbbb')).verified(true);
  story.end('half-published');
});

test('a fetch error is not a change, and takes none back', () => {
  const story = new Story().boot();
  story.looked(DOWN, DOWN).wait(60).looked(id('aaaa'), DOWN).wait(60).looked(id('bbbb')).wait(1);
  story.verified(true).tell({ kind: 'drain-on', reason: 'image aaaa → bbbb' }).agent('draining', 1);
  story.wait(60).looked(DOWN, DOWN).agent('draining', 1);
  story.end('fetch-errors');
});

test('a publisher who takes the change back ends the drain', () => {
  const story = new Story().boot();
  story.looked(id('bbbb')).verified(true).tell({ kind: 'drain-on', reason: 'image aaaa → bbbb' }).agent('draining', 1);
  story.wait(60).looked(id('aaaa')).tell({ kind: 'drain-off' }).agent('polling', 0);
  story.end('taken-back');
});

test('a change that is taken back while it is checked for the last time, and made again, is checked again', () => {
  const story = new Story().boot();
  story.looked(id('bbbb')).verified(true).tell({ kind: 'drain-on', reason: 'image aaaa → bbbb' }).agent('draining', 0);
  const key = targetsKey(targetsOf(story.state));
  story.wait(60).looked(id('aaaa')).tell({ kind: 'verified', key, isGood: true, duringDrain: true });
  story.tell({ kind: 'drain-off' }).agent('polling', 0).wait(60).looked(id('bbbb'));
  story.tell({ kind: 'drain-on', reason: 'image aaaa → bbbb' }).agent('draining', 0);
  story.end('made-again');
});

test('a reboot that is refused counts, and agents work until the next', () => {
  const story = new Story().boot();
  story.looked(id('bbbb')).verified(true).tell({ kind: 'drain-on', reason: 'image aaaa → bbbb' }).agent('draining', 0);
  story.verified(true, true);
  story.tell({ kind: 'reboot-asked', budget: recordReboot(EMPTY_BUDGET, ['image bbbb'], story.clock.wallMs) });
  story.tell({ kind: 'reboot-failed', trouble: { error: 'Cannot reboot: no helper' } });
  story.verified(true, true).tell({ kind: 'drain-off' }).tell({ kind: 'agent-started', toolchain: 'default' });
  story.agent('polling', 0).wait(60).looked(id('bbbb')).wait(600).looked(id('bbbb'));
  story.end('reboot-refused');
});

test('three reboots that did not help: held, and building on; the next image is followed', () => {
  let budget = EMPTY_BUDGET;
  for (const hours of [3, 2, 1]) budget = recordReboot(budget, ['image bbbb'], EPOCH - hours * 3_600_000);
  const story = new Story({ budget }).boot();
  story.looked(id('bbbb')).verified(true).wait(60).looked(id('bbbb'));
  story.wait(60).looked(id('cccc')).verified(true);
  story.end('held');
});

test('a monitor killed in a drain goes on with it when the change is still there', () => {
  const story = new Story({ drain: 'image aaaa → bbbb' }).boot();
  story.agent('draining', 0).looked(id('bbbb')).verified(true, true);
  story.end('killed-in-drain');
});

test('a monitor killed in a drain lets go of it when there is no change, or no answer', () => {
  const story = new Story({ drain: 'image aaaa → bbbb' }).boot();
  story.agent('draining', 0).looked(DOWN, id('t1')).tell({ kind: 'drain-off' });
  story.end('drain-let-go');
});

test('a failing toolchain does not hold back another, and is tried again with growing pauses and when its list changes', () => {
  const toolchains = [
    { name: 'default', wantsAgent: true },
    { name: 'broken', wantsAgent: true },
  ];
  const trouble = { error: 'The bootstrap of toolchain broken failed: exit status 2', hint: 'read its log' };
  const failed: Event = { kind: 'toolchain-failed', toolchain: 'broken', trouble };
  const story = new Story({ toolchains, watchesImage: false });
  story.wait(0);
  story.tell(
    { kind: 'toolchain-stage', toolchain: 'broken', stage: 'fetching' },
    { kind: 'toolchain-list', toolchain: 'broken', id: 'x1', version: '0.1' },
    { kind: 'toolchain-stage', toolchain: 'broken', stage: 'bootstrapping' },
  );
  story.tell(failed);
  story.tell(
    { kind: 'toolchain-list', toolchain: 'default', id: 't1', version: '1.0' },
    { kind: 'toolchain-ready', toolchain: 'default', hasAgent: true },
  );
  story.tell({ kind: 'ready' }, { kind: 'agent-started', toolchain: 'default' });
  const look = (broken: string): Event => ({
    kind: 'looked',
    found: { 'toolchain default': id('t1'), 'toolchain broken': id(broken) },
    random: 0.5,
  });
  story.tell(look('x1')).wait(30).tell(failed).wait(30).tell(look('x1')).wait(30).tell(failed);
  story.wait(30).tell(look('x2'));
  story.tell({ kind: 'toolchain-list', toolchain: 'broken', id: 'x2', version: '0.2' });
  story.tell({ kind: 'toolchain-ready', toolchain: 'broken', hasAgent: false });
  story.wait(60).tell(look('x2'));
  story.end('failing-toolchain');
});

test('a changed toolchain list drains and reboots', () => {
  const story = new Story().boot();
  story.looked(id('aaaa')).wait(60).looked(id('aaaa'), id('t2')).verified(true);
  story.tell({ kind: 'drain-on', reason: 'toolchain' }).agent('draining', 0).verified(true, true);
  story.end('new-toolchain');
});

test('without a state disk a change must be seen to happen and stay', () => {
  const { budget: _, ...start } = { budget: undefined };
  const story = new Story({ ...start, stateStorage: 'ram' });
  const { budget: _budget, ...state } = story.state;
  story.state = state;
  story.boot().looked(id('aaaa')).wait(60).looked(id('aaaa')).wait(60).looked(id('aaaa'));
  story.wait(60).looked(id('bbbb')).verified(true).wait(60).looked(id('bbbb')).wait(60).looked(id('bbbb'));
  story.end('no-state-disk');
});

test('without a state disk a host that came up with the old image again holds', () => {
  const story = new Story({ stateStorage: 'ram' });
  const { budget: _, ...state } = story.state;
  story.state = state;
  story.boot().looked(id('bbbb')).verified(true);
  for (let looks = 0; looks < 5; looks += 1) story.wait(60).looked(id('bbbb'));
  story.end('no-state-disk-again');
});

test('a budget that cannot be saved stops the reboot', () => {
  const story = new Story().boot();
  story.looked(id('bbbb')).verified(true).tell({ kind: 'drain-on', reason: 'image aaaa → bbbb' });
  story.agent('draining', 0).verified(true, true);
  story.tell({ kind: 'budget-lost', problem: 'Cannot save the reboot budget: ENOSPC' });
  story.tell({ kind: 'drain-off' });
  story.end('budget-lost');
});

test('tasks that never end are given up after the limit', () => {
  const story = new Story().boot();
  story.looked(id('bbbb')).verified(true).tell({ kind: 'drain-on', reason: 'image aaaa → bbbb' });
  story.agent('draining', 1).wait(TIMING.drainTasksMs / 1000 + 1);
  story.looked(id('bbbb')).verified(true, true);
  story.end('endless-task');
});

test('only looks and glances are not noted in the log', () => {
  assert.deepEqual(
    STEPS.filter((step) => !isNoteworthy(step)).map((step) => step.kind),
    ['see-agents', 'look'],
  );
});
