/** The selector of a metric, whatever its name has in it. */
export const selectorOf = (name: string) => /^[a-zA-Z_:][\w:]*$/.test(name) ? name : `{${JSON.stringify(name)}}`;
