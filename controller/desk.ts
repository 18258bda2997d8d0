/** What the controller's requests work on, and what they answer with. */
import type { KeyObject } from 'node:crypto';
import { planExpiry } from './plan.ts';
import type { Store } from './store.ts';

/** What is sent back. */
export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly content: { readonly text: string } | { readonly file: string; readonly sizeBytes: number };
  readonly headers?: Readonly<Record<string, string>>;
}

/** What the requests work on. */
export interface Desk {
  readonly store: Store;
  /** Of uploaded files. */
  readonly uploads: string;
  /** How agents reach us; without it, as the request did. */
  readonly publicUrl?: string;
  /** Agents that may take tasks; none: all may. */
  readonly trustedKeys: readonly KeyObject[];
  readonly taskTimeoutSeconds: number;
  readonly maxAttempts: number;
  readonly maxQueued: number;
  readonly maxUploadBytes: number;
  /** Whether agents get tasks at all; otherwise 501. */
  readonly handsOut: boolean;
  readonly now: () => number;
}

/** Puts tasks whose agent was not heard of for too long back in the queue, or gives them up. */
export function expireOverdue(desk: Desk): void {
  const nowMs = desk.now();
  desk.store.expire(
    planExpiry(desk.store.claims(), {
      nowMs,
      timeoutMs: desk.taskTimeoutSeconds * 1000,
      maxAttempts: desk.maxAttempts,
    }),
    nowMs,
  );
}

/** Text; a newline is added. */
export function textAnswer(text: string): Answer {
  return { status: 200, type: 'text/plain; charset=utf-8', content: { text: `${text}\n` } };
}

/** A manifest, as it is. */
export function manifestAnswer(text: string): Answer {
  return { status: 200, type: 'text/manifest; charset=utf-8', content: { text } };
}

/** Data, as JSON. */
export function jsonAnswer(value: unknown): Answer {
  return { status: 200, type: 'application/json', content: { text: `${JSON.stringify(value, undefined, 2)}\n` } };
}
