/** A root that cannot be packed. */
export class PackError extends Error {
  override readonly name = 'PackError';
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}
