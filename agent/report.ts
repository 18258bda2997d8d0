/**
 * What an agent tells of itself: its state file and its line of status, which are renewed with everything that happens, and
 * what is wrong, for the journal. What goes on is asked for each time, so the two agree.
 */
import { uptime } from 'node:os';
import { addEvent, writeState } from './state-file.ts';
import type { AgentEvent, AgentState } from './state-file.ts';

export interface ReportOptions {
  readonly stateFile: string;
  /** A line for the journal. */
  readonly onLine: (line: string) => void;
  /** What the agent does now, in a line. */
  readonly onStatus: (status: string) => void;
  /** What goes on. */
  readonly look: () => Pick<AgentState, 'state' | 'tasks' | 'undelivered'>;
}

/** A subject of errors: the state file itself. */
const STATE_FILE = 'state file';

export class Report {
  readonly #o: ReportOptions;
  #events: readonly AgentEvent[] = [];
  /** By subject, so that one that went right again takes only its own message away. */
  readonly #errors = new Map<string, string>();

  constructor(options: ReportOptions) {
    this.#o = options;
  }

  /** Notes a moment for the boot chart. */
  event(name: AgentEvent['name']): void {
    this.#events = addEvent(this.#events, { name, uptimeMs: Math.round(uptime() * 1000) });
    this.renew();
  }

  /** Notes what is wrong, and says it when it is new. */
  problem(subject: string, message: string, options: { readonly quiet?: boolean } = {}): void {
    const isNew = this.#errors.get(subject) !== message;
    this.#errors.delete(subject);
    this.#errors.set(subject, message);
    if (isNew && options.quiet !== true) this.#o.onLine(message);
    this.renew();
  }

  /** What was wrong with it is right again. */
  fine(subject: string): void {
    if (this.#errors.delete(subject)) this.renew();
  }

  /** Says what goes on now. */
  renew(): void {
    const { state, tasks, undelivered } = this.#o.look();
    this.#write({ state, tasks, undelivered });
    const lastError = [...this.#errors.values()].at(-1);
    const names = tasks.map(({ build, name, version }) => `${build} ${name} ${version}`).join(', ');
    const doing = tasks.length === 0 ? '' : `: ${names}`;
    const waiting = undelivered === 0 ? '' : `; ${undelivered} results undelivered`;
    this.#o.onStatus(`${state}${doing}${waiting}${lastError === undefined ? '' : `; ${lastError}`}`);
  }

  #write(now: Pick<AgentState, 'state' | 'tasks' | 'undelivered'>): void {
    const lastError = [...this.#errors].findLast(([subject]) => subject !== STATE_FILE)?.[1];
    try {
      writeState(this.#o.stateFile, {
        ...now,
        ...(lastError === undefined ? {} : { lastError }),
        events: this.#events,
      });
      this.#errors.delete(STATE_FILE);
    } catch (error) {
      const message = `Cannot write the state file: ${error instanceof Error ? error.message : String(error)}`;
      if (this.#errors.get(STATE_FILE) !== message) this.#o.onLine(message);
      this.#errors.set(STATE_FILE, message);
    }
  }
}
