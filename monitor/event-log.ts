/** What the log says of events: those that people want to hear of. */
import type { Event } from './event.ts';
import type { Log } from './log.ts';
import type { Trouble } from './state.ts';
import { describe } from './step.ts';

export function logEvent(event: Event, log: Log): void {
  switch (event.kind) {
    case 'setback':
      return log('error', `${describe(event.step)} failed: ${withHint(event.trouble)}`);
    case 'toolchain-failed':
    case 'agent-failed':
      return log('error', `${event.kind} ${event.toolchain}: ${withHint(event.trouble)}`);
    case 'toolchain-ready':
    case 'toolchain-disabled':
    case 'agent-started':
      return log('notice', `${event.kind} ${event.toolchain}`);
    case 'verified':
      return log(
        event.isGood ? 'notice' : 'warning',
        event.isGood ? 'what is published is whole' : (event.why ?? 'bad'),
      );
    case 'drain-on':
      return log('notice', `draining: ${event.reason}`);
    case 'drain-off':
      return log('notice', 'the drain is over, agents may take tasks again');
    case 'budget-lost':
      return log('error', `reboot budget: ${event.problem}`);
    case 'reboot-asked':
      return log('notice', 'rebooting');
    case 'reboot-failed':
      return log('error', `reboot failed: ${withHint(event.trouble)}`);
    case 'began':
    case 'ended':
    case 'toolchain-stage':
    case 'toolchain-list':
    case 'agents-seen':
    case 'named':
    case 'ready':
    case 'looked':
    case 'budget-saved':
      return undefined;
  }
}

/** What went wrong, and what to try, in one line. */
export function withHint(trouble: Trouble): string {
  return trouble.hint === undefined ? trouble.error : `${trouble.error} (${trouble.hint})`;
}
