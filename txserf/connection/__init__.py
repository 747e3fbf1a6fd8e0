"""
One connection to an agent, and the next one: protocol, factory, session and lanes.

Programs get two classes of this folder, `SerfProtocol` and `SerfClientFactory`. Their documented methods are a promise
to programs; the methods that only the package calls begin with an underscore. All other classes are private to the
package, whatever the names of their methods.
"""
