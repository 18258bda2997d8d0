/**
 * How an error that nobody caught is told: the message, what caused it, and what the reader may try. Once, at the top.
 */

/**
 * Formats an error for a person: its message, a line for each cause that adds something, and every `hint` of the chain.
 *
 * @param error - whatever was thrown
 * @param options - `stack`: add the stack of the outermost error (for a defect of ours)
 * @returns lines without a final newline
 */
export function formatError(error: unknown, options: { readonly stack?: boolean } = {}): string {
  const lines: string[] = [];
  const hints = new Set<string>();
  let said = '';
  for (const link of chainOf(error)) {
    const message = link instanceof Error ? link.message : String(link);
    // A wrapper often repeats the message of its cause; once is enough.
    if (!said.includes(message)) {
      lines.push(lines.length === 0 ? `error: ${message}` : `  because: ${message}`);
      said += `${message}\n`;
    }
    const hint = hintOf(link);
    if (hint !== undefined) hints.add(hint);
  }
  for (const hint of hints) lines.push(`hint: ${hint}`);
  if (options.stack === true && error instanceof Error && error.stack !== undefined) lines.push(error.stack);
  return lines.join('\n');
}

/** The error and its causes, an AggregateError's members included, each once and at most 16. */
function chainOf(error: unknown): unknown[] {
  const chain: unknown[] = [];
  const visit = (link: unknown): void => {
    if (link === undefined || chain.includes(link) || chain.length >= 16) return;
    chain.push(link);
    if (link instanceof AggregateError) for (const member of link.errors) visit(member);
    if (link instanceof Error) visit(link.cause);
  };
  visit(error);
  return chain;
}

const hintOf = (link: unknown): string | undefined =>
  link instanceof Error && 'hint' in link && typeof link.hint === 'string' ? link.hint : undefined;
