/** What can happen to a monitor. */
import type { Budget } from './budget.ts';
import type { Trouble, AgentReport, Found } from './state.ts';
import type { Step } from './step.ts';

/** What the outcome of a step, or the passing of time, tells. */
export type Event =
  | { readonly kind: 'began'; readonly step: Step }
  | { readonly kind: 'ended'; readonly step: Step }
  /** a step ended with an error that it does not report itself */
  | { readonly kind: 'setback'; readonly step: Step; readonly trouble: Trouble }
  | { readonly kind: 'toolchain-stage'; readonly toolchain: string; readonly stage: 'fetching' | 'bootstrapping' }
  | { readonly kind: 'toolchain-list'; readonly toolchain: string; readonly id: string; readonly version?: string }
  | { readonly kind: 'toolchain-ready'; readonly toolchain: string; readonly hasAgent: boolean }
  | { readonly kind: 'toolchain-disabled'; readonly toolchain: string }
  | { readonly kind: 'toolchain-failed'; readonly toolchain: string; readonly trouble: Trouble }
  | { readonly kind: 'agent-started'; readonly toolchain: string }
  | { readonly kind: 'agent-failed'; readonly toolchain: string; readonly trouble: Trouble }
  | { readonly kind: 'agents-seen'; readonly agents: Readonly<Record<string, SeenAgent>> }
  | { readonly kind: 'named'; readonly isDone: boolean }
  | { readonly kind: 'ready' }
  | {
      readonly kind: 'looked';
      readonly found: Readonly<Record<string, Found>>;
      /** 0 to 1, for the spread of the next pause */
      readonly random: number;
    }
  | {
      readonly kind: 'verified';
      readonly key: string;
      readonly isGood: boolean;
      readonly why?: string;
      readonly duringDrain: boolean;
    }
  | { readonly kind: 'drain-on'; readonly reason: string }
  | { readonly kind: 'drain-off' }
  | { readonly kind: 'budget-saved' }
  | { readonly kind: 'budget-lost'; readonly problem: string }
  | { readonly kind: 'reboot-asked'; readonly budget?: Budget }
  | { readonly kind: 'reboot-failed'; readonly trouble: Trouble };

/** What was seen of one agent. */
export interface SeenAgent {
  /** systemd's ActiveState; absent when it was not asked */
  readonly unit?: string;
  readonly detail?: string;
  readonly report?: AgentReport;
}
